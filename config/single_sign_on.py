"""Single sign-on with an OpenID Connect provider, where one is named: what Django and allauth are told.

An optional part: its packages are those of requirements-sso.txt, and without a provider nothing of it
is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from config.env import Environment

APPS = [
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
]
MIDDLEWARE = ["allauth.account.middleware.AccountMiddleware"]
# A part of the address that the provider sends people back to.
PROVIDER_ID = "oidc"
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class SingleSignOn:
    """A provider, and what we take from what it says of somebody."""

    issuer: str
    client_id: str
    client_secret: str
    # What the button on the login page says.
    name: str
    # The claim that lists the groups of somebody.
    groups_claim: str
    scopes: tuple[str, ...]
    # After so long somebody has to ask the provider again, which may have taken him out of a group.
    session_seconds: int


def read_single_sign_on(env: Environment) -> SingleSignOn | None:
    """The provider named in the environment; None where there is none or what is said of it is wrong."""
    issuer = env.text("YARDMASTER_OIDC_ISSUER").strip()
    found = SingleSignOn(
        issuer=issuer.rstrip("/"),
        client_id=env.text("YARDMASTER_OIDC_CLIENT_ID").strip(),
        client_secret=env.text("YARDMASTER_OIDC_CLIENT_SECRET").strip(),
        name=env.text("YARDMASTER_OIDC_NAME", "single sign-on").strip(),
        groups_claim=env.text("YARDMASTER_OIDC_GROUPS_CLAIM", "groups").strip(),
        scopes=tuple(env.words("YARDMASTER_OIDC_SCOPES", "openid,profile,email")),
        session_seconds=env.integer(
            "YARDMASTER_OIDC_SESSION_SECONDS",
            DAY_SECONDS // 3,
            minimum=60,
            maximum=30 * DAY_SECONDS,
        ),
    )
    if not issuer:
        return None
    problems = _problems(found)
    env.problems += problems
    return None if problems else found


def django_settings(given: SingleSignOn, *, is_tls: bool) -> dict[str, Any]:
    """What allauth is told: one provider, no accounts of its own, nothing stored of its tokens."""
    return {
        "SOCIALACCOUNT_ONLY": True,
        "SOCIALACCOUNT_ADAPTER": "authn.single_sign_on.People",
        "SOCIALACCOUNT_AUTO_SIGNUP": True,
        # By a link: the state in the session is what a forged answer does not have.
        "SOCIALACCOUNT_LOGIN_ON_GET": True,
        "SOCIALACCOUNT_STORE_TOKENS": False,
        # An address of mail proves nothing: whoever has the same one is not the same user.
        "SOCIALACCOUNT_EMAIL_AUTHENTICATION": False,
        "SOCIALACCOUNT_OPENID_CONNECT_URL_PREFIX": "",
        "SOCIALACCOUNT_PROVIDERS": {
            "openid_connect": {
                "OAUTH_PKCE_ENABLED": True,
                "SCOPE": list(given.scopes),
                "APPS": [
                    {
                        "provider_id": PROVIDER_ID,
                        "name": given.name,
                        "client_id": given.client_id,
                        "secret": given.client_secret,
                        "settings": {"server_url": given.issuer},
                    }
                ],
            }
        },
        "ACCOUNT_EMAIL_VERIFICATION": "none",
        "ACCOUNT_SIGNUP_FIELDS": ["username*"],
        "ACCOUNT_UNIQUE_EMAIL": False,
        "ACCOUNT_DEFAULT_HTTP_PROTOCOL": "https" if is_tls else "http",
        "LOGIN_REDIRECT_URL": "/admin/",
    }


def _problems(given: SingleSignOn) -> list[str]:
    found = []
    address = urlsplit(given.issuer)
    if address.scheme != "https" and not (
        address.scheme == "http" and is_loopback(address.hostname)
    ):
        found.append("YARDMASTER_OIDC_ISSUER: expected an https:// address")
    found += [
        f"YARDMASTER_OIDC_{name}: missing, and YARDMASTER_OIDC_ISSUER is set"
        for name, value in (
            ("CLIENT_ID", given.client_id),
            ("CLIENT_SECRET", given.client_secret),
            ("GROUPS_CLAIM", given.groups_claim),
        )
        if not value
    ]
    if "openid" not in given.scopes:
        found.append("YARDMASTER_OIDC_SCOPES: openid has to be among them")
    if find_spec("allauth") is None or find_spec("oauthlib") is None:
        found.append("YARDMASTER_OIDC_ISSUER: pip install -r requirements-sso.txt comes first")
    return found


def is_loopback(host: str | None) -> bool:
    """Whether this is the machine itself, which needs no TLS."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False
