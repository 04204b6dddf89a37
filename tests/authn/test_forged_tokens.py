"""Every way we know to forge a token, and that none of them lets anybody in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from django.conf import settings

from authn.tokens import find_principal, issue
from tests.api.conftest import Api, check_problem
from tests.authn.conftest import EC_ISSUER, RSA_ISSUER, Issuers, jwk, public_pem

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

CORPUS = Path(__file__).parent.parent / "corpora/forged_tokens.txt"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines() if line.startswith("{")]
LONG = "x" * 9000


def test_there_are_enough_of_them_and_no_two_alike() -> None:
    assert len(CASES) >= 40
    assert len({case["name"] for case in CASES}) == len(CASES)


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parts_of(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = (part + "=" * (-len(part) % 4) for part in text.split("."))
    return json.loads(base64.urlsafe_b64decode(head)), json.loads(base64.urlsafe_b64decode(body))


def signature(key: Any, text: str, algorithm: str) -> str:
    """As an attacker would sign: with whatever he has, whatever the header says."""
    raw = text.encode()
    if isinstance(key, RSAPrivateKey):
        return encoded(key.sign(raw, padding.PKCS1v15(), hashes.SHA256()))
    if isinstance(key, EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(raw, ECDSA(hashes.SHA256())))
        return encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    if key is None:
        return ""
    digest = hashlib.sha512 if algorithm == "HS512" else hashlib.sha256
    return encoded(hmac.digest(key, raw, digest))


@pytest.fixture
def forge(issuers: Issuers, django_user_model: Any) -> Any:
    ann = django_user_model.objects.create_user("ann", password="x")
    own_key = settings.SIMPLE_JWT["SIGNING_KEY"].encode()
    keys: dict[str, Any] = {
        **issuers.keys,
        "own": own_key,
        "stranger_hs": b"s" * 64,
        "rsa_public_pem": public_pem(issuers.keys["rsa"]).encode(),
        "ec_public_pem": public_pem(issuers.keys["ec"]).encode(),
        "rsa_jwk": json.dumps(jwk(issuers.keys["rsa"], "one")).encode(),
        "empty": b"",
        "none": None,
    }

    def good(of: str) -> str:
        if of == "own":
            return issue(ann).text
        return issuers.token(of, claims={"groups": ["ops"]})

    def made(case: dict[str, Any]) -> str:
        head, claims = parts_of(good(case["of"]))
        now = int(time.time())
        for target, changes in ((head, case.get("header", {})), (claims, case.get("claims", {}))):
            for name, value in changes.items():
                if value is None:
                    target.pop(name, None)
                elif name in ("exp", "iat", "nbf") and type(value) is int:
                    target[name] = now + value
                else:
                    target[name] = value
        body = json.dumps(claims)
        for word, text in (("LONG", json.dumps(LONG)), ("DEEP", "[" * 2000 + "]" * 2000)):
            body = body.replace(f'"{word}"', text)
        body = body.replace('"x": "TWICE"', '"sub": "ann"')
        unsigned = f"{encoded(head)}.{encoded(body.encode())}"
        key = keys[case.get("key", case["of"])]
        text = f"{unsigned}.{signature(key, unsigned, str(head.get('alg')))}"
        return CHANGES[case["raw"]](text, good(case["of"])) if "raw" in case else text

    return made


def _list_claims(text: str, _: str) -> str:
    unsigned = f"{text.split('.')[0]}.{encoded([1])}"
    return f"{unsigned}.{signature(settings.SIMPLE_JWT['SIGNING_KEY'].encode(), unsigned, '')}"


def _no_json(text: str, _: str) -> str:
    unsigned = f"{text.split('.')[0]}.{encoded(b'{')}"
    return f"{unsigned}.{signature(settings.SIMPLE_JWT['SIGNING_KEY'].encode(), unsigned, '')}"


def _other_signature(text: str, good: str) -> str:
    head, claims = parts_of(text)
    changed = encoded({**claims, "exp": claims["exp"] + 1})
    return f"{encoded(head)}.{changed}.{good.split('.')[2]}"


CHANGES = {
    "unsigned": lambda text, _: text.rpartition(".")[0],
    "empty_signature": lambda text, _: text.rpartition(".")[0] + ".",
    "cut_signature": lambda text, _: text[:-20],
    "other_signature": _other_signature,
    "zero_signature": lambda text, _: text.rpartition(".")[0] + "." + encoded(b"\0" * 64),
    "four_parts": lambda text, _: text + ".x",
    "padded": lambda text, _: text + "==",
    "line_break": lambda text, _: text + "\n",
    "blank": lambda text, _: text.replace(".", ". ", 1),
    "list_claims": _list_claims,
    "no_json": _no_json,
}


@pytest.mark.parametrize("of", ["own", "rsa", "ec"])
def test_what_the_forgeries_start_from_is_good(of: str, forge: Any) -> None:
    found = find_principal(forge({"name": "good", "of": of}))
    assert found is not None
    assert found.name == "ann"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_forged_token_finds_nobody(case: dict[str, Any], forge: Any) -> None:
    assert find_principal(forge(case)) is None


def test_forged_tokens_all_get_the_same_answer(forge: Any) -> None:
    for case in CASES:
        text = forge(case).strip().replace("\n", "")
        if case.get("raw") == "line_break" or len(text) > 8000:
            continue
        response = Api(None).get("whoami", authorization=f"Bearer {text}")
        body = check_problem(response, 401, "invalid_credentials")
        assert body["detail"] == "The credentials are not valid."


def test_the_issuers_of_the_forgeries_are_those_of_the_file(issuers: Issuers) -> None:
    assert {*settings.AUTH.issuers} == {RSA_ISSUER, EC_ISSUER}
