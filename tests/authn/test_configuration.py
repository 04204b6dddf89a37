"""The file with keys and issuers: what is wrong in it is told at the start, and quotes no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from authn.configuration import read_configuration
from authn.key_material import BadKey, algorithm_of, signing_key
from authn.settings import token_settings, trusted_proxies
from tests.authn.conftest import jwk, made_keys, private_pem, public_pem

KEY = '[keys.ci]\nsha256 = "' + "ab" * 32 + '"\nrole = "viewer"\nclusters = ["alpha"]\n'
ISSUER = (
    '[issuers.corp]\nissuer = "https://id.example"\naudience = "jobs"\nalgorithm = "RS256"\n'
    'jwks_file = "jwks.json"\nsubjects = "users"\n'
)


def problems_of(directory: Path, text: str) -> list[str]:
    keys = made_keys()
    sets = {
        "jwks.json": [jwk(keys["rsa"], "one")],
        "ec.json": [jwk(keys["ec"], "one")],
        "secret.json": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "one"}],
        "twice.json": [jwk(keys["rsa"], "one"), jwk(keys["rsa2"], "one")],
        "nameless.json": [{k: v for k, v in jwk(keys["rsa"], "x").items() if k != "kid"}],
        "encryption.json": [{**jwk(keys["rsa"], "one"), "use": "enc"}],
        "private.json": [{**jwk(keys["rsa"], "one"), "d": "AQAB"}],
        "small.json": [jwk(rsa.generate_private_key(65537, 1024), "one")],
        "none.json": [],
    }
    for name, entries in sets.items():
        (directory / name).write_text(json.dumps({"keys": entries}))
    (directory / "list.json").write_text("[1]")
    (directory / "rsa.pem").write_text(public_pem(keys["rsa"]))
    (directory / "short").write_text("short-secret")
    (directory / "secret").write_text("a-secret-of-more-than-thirty-two-bytes")
    (directory / "auth.toml").write_text(text)
    problems: list[str] = []
    read_configuration(str(directory / "auth.toml"), ["alpha"], ["shell"], problems)
    return problems


def test_a_sound_file_has_no_problem(tmp_path: Path) -> None:
    shared = ISSUER.replace("corp", "shared").replace("id.example", "shared.example")
    shared = shared.replace("RS256", "HS256").replace('jwks_file = "jwks.json"', "")
    assert problems_of(tmp_path, KEY + ISSUER + shared + 'secret_file = "secret"\n') == []
    assert read_configuration("", [], [], []).keys == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[nonsense]\n", "unknown table 'nonsense'"),
        ("keys = 7\n", "'keys' must be a table"),
        ("[keys]\nci = 7\n", "keys.ci"),
        (KEY.replace("viewer", "king"), "role"),
        (KEY.replace('"alpha"', '"gamma"'), "clusters: there is no gamma"),
        (KEY.replace('["alpha"]', "[]"), "clusters: names none"),
        (KEY.replace('["alpha"]', '"alpha"'), "clusters: expected a list"),
        (KEY + 'grants = ["python"]\n', "grants: python needs none"),
        (KEY + 'addresses = ["10.0.0.1/8"]\n', "addresses"),
        (KEY + "expires_at = 2030-01-01T00:00:00\n", "expires_at"),
        (KEY + 'expires_at = "soon"\n', "expires_at"),
        (KEY + "color = 1\n", "unknown color"),
        (KEY + 'key_file = "secret"\n', "exactly one of sha256"),
        (KEY.replace("ab" * 32, "ab"), "sha256"),
        (KEY.replace('sha256 = "' + "ab" * 32, 'key_file = "short'), "32 to 1000"),
        (KEY.replace('sha256 = "' + "ab" * 32, 'key_file = "nowhere'), "key_file"),
        (KEY + KEY.replace("ci", "cd"), "two keys have the same text"),
        (ISSUER.replace('"RS256"', '"none"'), "algorithm"),
        (ISSUER.replace('algorithm = "RS256"\n', ""), "algorithm"),
        (ISSUER.replace('"RS256"', '"HS256"'), "does not go with HS256"),
        (ISSUER.replace('"RS256"', '"ES256"'), "not for ES256"),
        (ISSUER.replace("jwks.json", "ec.json"), "not for RS256"),
        (ISSUER.replace("jwks.json", "secret.json"), "not for RS256"),
        (ISSUER.replace("jwks.json", "twice.json"), "`kid`"),
        (ISSUER.replace("jwks.json", "nameless.json"), "`kid`"),
        (ISSUER.replace("jwks.json", "encryption.json"), "no public key to check"),
        (ISSUER.replace("jwks.json", "private.json"), "no public key to check"),
        (ISSUER.replace("jwks.json", "small.json"), "2048 bits"),
        (ISSUER.replace("jwks.json", "none.json"), "no key"),
        (ISSUER.replace("jwks.json", "list.json"), "cannot read"),
        (ISSUER.replace("jwks.json", "nowhere.json"), "cannot read"),
        (ISSUER + 'secret_file = "secret"\n', "exactly one of jwks_file"),
        (ISSUER.replace('jwks_file = "jwks.json"', 'public_key_file = "secret"'), "no public key"),
        (
            ISSUER.replace("RS256", "HS256").replace(
                'jwks_file = "jwks.json"', 'secret_file = "rsa.pem"'
            ),
            "is a PEM",
        ),
        (
            ISSUER.replace("RS256", "HS256").replace(
                'jwks_file = "jwks.json"', 'secret_file = "short"'
            ),
            "32 bytes",
        ),
        (ISSUER.replace('audience = "jobs"\n', ""), "audience"),
        (ISSUER.replace('"users"', '"mapped"'), "roles_claim"),
        (ISSUER.replace('"users"', '"all"'), "subjects"),
        (ISSUER + "max_lifetime_seconds = 1\n", "max_lifetime_seconds"),
        (ISSUER + "[issuers.corp.roles]\nops = 1\n", "roles.ops"),
        (ISSUER + '[issuers.corp.roles.ops]\nrole = "x"\nclusters = ["*"]\n', "role"),
        (ISSUER + ISSUER.replace("corp", "other"), "two issuers"),
        ("[[[", "cannot read"),
    ],
)
def test_a_mistake_is_told_and_where(text: str, named: str, tmp_path: Path) -> None:
    problems = problems_of(tmp_path, text)
    assert len(problems) == 1, problems
    assert named in problems[0]
    assert "short-secret" not in problems[0]


def test_the_kind_of_key_says_the_algorithm() -> None:
    keys = made_keys()
    assert algorithm_of("x" * 32) == "HS256"
    assert algorithm_of(signing_key(private_pem(keys["rsa"]))) == "RS256"
    assert algorithm_of(signing_key(private_pem(keys["ec"]))) == "ES256"
    for bad in (
        "x" * 31,
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP384R1()),
        7,
    ):
        with pytest.raises(BadKey):
            algorithm_of(bad)
    with pytest.raises(BadKey):
        signing_key(public_pem(keys["rsa"]))


def made(text: str) -> tuple[dict[str, object], list[str]]:
    problems: list[str] = []
    found = token_settings(
        text, "s" * 40, issuer="us", audience="jobs", lifetime=60, problems=problems
    )
    return found, problems


def test_without_a_key_of_their_own_tokens_have_one_that_follows_from_the_secret_key() -> None:
    found, problems = made("")
    assert problems == []
    assert found["ALGORITHM"] == "HS256"
    assert len(str(found["SIGNING_KEY"])) >= 32
    assert "s" * 40 not in str(found["SIGNING_KEY"])


@pytest.mark.parametrize("text", ["short", "-----BEGIN PRIVATE KEY-----\nx\n"])
def test_a_bad_key_for_tokens_is_told(text: str) -> None:
    _, problems = made(text)
    assert len(problems) == 1
    assert problems[0].startswith("YARDMASTER_JWT_KEY")


def test_proxies_that_are_no_networks_are_told() -> None:
    problems: list[str] = []
    assert trusted_proxies(["10.0.0.0/8", "proxy.example"], problems) == ()
    assert len(problems) == 1
    assert problems[0].startswith("YARDMASTER_TRUSTED_PROXIES")
