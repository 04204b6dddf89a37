"""Single sign-on, from the login page to a page of a cluster; served, with a provider beside it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from config.env import Environment
from config.single_sign_on import read_single_sign_on
from tests.processes import free_port, manage, started
from tests.sso.provider import CLIENT_ID, CLIENT_SECRET, Provider, running

GOOD = {
    "YARDMASTER_OIDC_ISSUER": "https://id.example",
    "YARDMASTER_OIDC_CLIENT_ID": "a",
    "YARDMASTER_OIDC_CLIENT_SECRET": "b",
}
ANN = {"sub": "ann-1", "preferred_username": "ann", "email": "ann@example.com", "groups": ["ops"]}
# Made once, by the program's own code: groups with roles, a local user of a name that others want.
PEOPLE = """
from django.contrib.auth.models import Group, User
from authn.models import GroupRole
for name, role in (("ops", "operator"), ("watchers", "viewer")):
    GroupRole.objects.create(group=Group.objects.create(name=name), cluster_id="alpha", role=role)
User.objects.create_superuser("root", email="root@example.com", password="correct horse battery")
"""


class Site:
    """A server with databases of its own, and what its command line says of them."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self.address, self.environment = address, environment

    def ask(self, code: str) -> Any:
        """The value of an expression, in the program."""
        text = f"import json; print('=' + json.dumps({code}))"
        done = manage("shell", "--no-imports", "-c", text, env=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("=")[2])

    def user(self, name: str) -> Any:
        return self.ask(
            "[[u.is_staff, u.is_superuser, u.has_usable_password(), sorted(g.name for g in"
            " u.groups.all())] for u in __import__('django.contrib.auth.models').contrib.auth.models"
            f".User.objects.filter(username={name!r})]"
        )


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def site(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("sso")
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("YARDMASTER_")},
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "YARDMASTER_HOME": str(home),
        "YARDMASTER_SECRET_KEY": "only-for-tests-0123456789-0123456789-0123456789",
        "YARDMASTER_CLUSTERS": f"alpha=sqlite:///{home}/alpha.sqlite3",
        "YARDMASTER_OIDC_ISSUER": provider.issuer,
        "YARDMASTER_OIDC_CLIENT_ID": CLIENT_ID,
        "YARDMASTER_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "YARDMASTER_OIDC_NAME": "the <house>",
    }
    for arguments in (("migrate",), ("shell", "--no-imports", "-c", PEOPLE)):
        done = manage(*arguments, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    address = f"http://127.0.0.1:{port}"
    with started("serve", "--bind", f"127.0.0.1:{port}", env=environment):
        deadline = time.monotonic() + 120
        while True:
            try:
                assert requests.get(f"{address}/livez", timeout=5).status_code == 200
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield Site(address, environment)


@pytest.fixture
def sign_in(site: Site, provider: Provider) -> Callable[..., tuple[requests.Session, Any]]:
    """Let somebody go to the provider and come back; returns his browser and the last answer."""

    def go(
        person: dict[str, Any], query: str = "", **spoil: Any
    ) -> tuple[requests.Session, requests.Response]:
        provider.person, provider.spoil = person, spoil
        browser = requests.Session()
        return browser, browser.get(f"{site.address}/admin/sso/login/?{query}", timeout=60)

    return go


def is_signed_in(site: Site, browser: requests.Session) -> bool:
    """Whether a session counts where sessions do beside the screen: for the documents."""
    return browser.get(f"{site.address}/jm-api/openapi.json", timeout=60).status_code == 200


def test_the_login_page_leads_to_the_provider(site: Site) -> None:
    page = requests.get(f"{site.address}/admin/login/?next=/admin/alpha/jobs/", timeout=60).text
    assert "Sign in with the &lt;house&gt;" in page
    assert "/admin/sso/login/?next=/admin/alpha/jobs/" in page


def test_whoever_is_in_a_group_of_ours_is_in_it_here_and_nothing_more(site, sign_in) -> None:
    person = {**ANN, "groups": ["ops", "elsewhere"], "is_superuser": True, "is_staff": True}
    browser, response = sign_in(person, "next=/admin/alpha/")
    assert (response.status_code, urlsplit(response.url).path) == (200, "/admin/alpha/")
    assert is_signed_in(site, browser)
    assert site.user("ann") == [[True, False, False, ["ops"]]]
    # What the provider says at the next sign-in holds, and nothing of before.
    sign_in({**ANN, "groups": ["watchers"]})
    assert site.user("ann") == [[True, False, False, ["watchers"]]]
    _, response = sign_in({**ANN, "groups": []})
    assert response.status_code == 403
    assert site.user("ann") == [[False, False, False, []]]
    assert (
        browser.get(f"{site.address}/admin/", timeout=60).url.partition("?")[0].endswith("/login/")
    )
    audit = site.ask(
        "[[a.target_id, a.before['groups'], a.after['groups']] for a in __import__('authn.models')"
        ".models.AccessAuditEntry.objects.filter(actor='sso:provider').order_by('at', 'pk')]"
    )
    assert audit[-3:] == [
        ["ann", [], ["ops"]],
        ["ann", ["ops"], ["watchers"]],
        ["ann", ["watchers"], []],
    ]


def test_a_name_or_an_address_that_is_somebodys_makes_nobody_that_one(site, sign_in) -> None:
    person = {**ANN, "sub": "x-1", "preferred_username": "root", "email": "root@example.com"}
    browser, response = sign_in({**person, "email_verified": True})
    assert response.status_code == 200
    assert is_signed_in(site, browser)
    [[_, is_superuser, has_password, groups]] = site.user("root")
    assert (is_superuser, has_password, groups) == (True, True, [])
    names = site.ask(
        "[u.username for u in __import__('django.contrib.auth.models').contrib.auth.models"
        ".User.objects.filter(is_superuser=True)]"
    )
    assert names == ["root"]


@pytest.mark.parametrize(
    "groups", [[], ["elsewhere"], None, "", 5, {"ops": 1}, [["ops"]], [None], ["OPS "]]
)
def test_whoever_is_in_no_group_of_ours_does_not_come_in(groups, site, sign_in) -> None:
    _, response = sign_in({**ANN, "sub": "ben-1", "preferred_username": "ben", "groups": groups})
    assert response.status_code == 403
    assert site.user("ben") == []


@pytest.mark.parametrize(
    "spoiled",
    [{"aud": "somebody-else"}, {"iss": "http://127.0.0.1:1"}, {"exp": 1}],
    ids=["audience", "issuer", "expired"],
)
def test_a_token_for_somebody_else_is_refused(spoiled, site, sign_in) -> None:
    person = {**ANN, "sub": "eve-1", "preferred_username": "eve"}
    _, response = sign_in(person, **spoiled)
    assert response.status_code == 403
    assert site.user("eve") == []


def test_an_answer_that_nobody_asked_for_is_refused(site, provider) -> None:
    for query in ("code=x&state=y", "code=x", "state=y", "error=access_denied&state=y", ""):
        url = f"{site.address}/admin/sso/callback/?{query}"
        response = requests.get(url, timeout=60, allow_redirects=False)
        assert response.status_code == 403, query


def test_somebody_elses_answer_does_not_sign_in(site, provider) -> None:
    """The state belongs to the browser that asked."""
    provider.person, provider.spoil = ANN, {}
    his = requests.Session()
    away = his.get(f"{site.address}/admin/sso/login/", timeout=60, allow_redirects=False)
    back = requests.get(away.headers["Location"], timeout=60, allow_redirects=False)
    response = requests.get(back.headers["Location"], timeout=60, allow_redirects=False)
    assert response.status_code == 403


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"]
)
def test_nobody_is_sent_to_another_site_afterwards(target, site, sign_in) -> None:
    _, response = sign_in(ANN, f"next={target}")
    assert urlsplit(response.url).netloc == urlsplit(site.address).netloc


def test_accounts_are_not_connected_to_each_other(site, sign_in) -> None:
    _, response = sign_in({**ANN, "sub": "new-1"}, "process=connect")
    assert response.status_code == 403


def test_a_provider_that_does_not_answer_is_no_error_of_ours(site, provider) -> None:
    whole, provider.discovery = provider.discovery, dict
    try:
        response = requests.get(f"{site.address}/admin/sso/login/", timeout=60)
    finally:
        provider.discovery = whole
    assert response.status_code == 503


def test_the_way_there_has_a_state_and_a_challenge(site) -> None:
    response = requests.get(f"{site.address}/admin/sso/login/", timeout=60, allow_redirects=False)
    asked = parse_qs(urlsplit(response.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["state"][0]) >= 16
    assert asked["redirect_uri"] == [f"{site.address}/admin/sso/callback/"]
    assert set(asked["scope"][0].split()) == {"openid", "profile", "email"}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"YARDMASTER_OIDC_ISSUER": "http://id.example"}, "https"),
        ({"YARDMASTER_OIDC_ISSUER": "http://127.0.0.1.example"}, "https"),
        ({"YARDMASTER_OIDC_CLIENT_ID": ""}, "CLIENT_ID"),
        ({"YARDMASTER_OIDC_CLIENT_SECRET": ""}, "CLIENT_SECRET"),
        ({"YARDMASTER_OIDC_SCOPES": "profile"}, "openid"),
        ({"YARDMASTER_OIDC_SESSION_SECONDS": "1"}, "SESSION_SECONDS"),
    ],
)
def test_a_mistake_is_told_at_start(changed: dict[str, str], complaint: str) -> None:
    env = Environment({**GOOD, **changed})
    read_single_sign_on(env)
    assert any(complaint in problem for problem in env.problems)
    good = Environment(GOOD)
    assert read_single_sign_on(good) is not None
    assert good.problems == []
    assert read_single_sign_on(Environment({})) is None


def test_without_a_provider_there_is_no_trace_of_it(db: None, client: Any) -> None:
    assert client.get("/admin/sso/login/").status_code in (302, 404)
    assert "/admin/sso/" not in client.get("/admin/login/").content.decode()
