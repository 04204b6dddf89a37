"""API keys in the admin site."""

from __future__ import annotations

from typing import Any

import pytest

from authn.keys import create_key, find_principal
from authn.models import ApiKey

pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> str:
    return create_key("ci", "operator", ["alpha"])[1]


def test_keys_are_shown_without_their_digest(key: str, admin_client: Any) -> None:
    row = ApiKey.objects.get()
    for path in ("/admin/authn/apikey/", f"/admin/authn/apikey/{row.pk}/change/"):
        page = admin_client.get(path).content.decode()
        assert "ci" in page
        assert "operator" in page
        assert "digest" not in page
        assert bytes(row.digest).hex() not in page


def test_keys_are_revoked_by_an_action(key: str, admin_client: Any) -> None:
    row = ApiKey.objects.get()
    admin_client.post("/admin/authn/apikey/", {"action": "revoke", "_selected_action": [row.pk]})
    assert find_principal(key) is None


def test_keys_are_neither_made_nor_edited_nor_deleted_here(key: str, admin_client: Any) -> None:
    row = ApiKey.objects.get()
    assert admin_client.get("/admin/authn/apikey/add/").status_code == 403
    assert (
        admin_client.post(f"/admin/authn/apikey/{row.pk}/delete/", {"post": "yes"}).status_code
        == 403
    )
    admin_client.post(
        f"/admin/authn/apikey/{row.pk}/change/",
        {
            "name": "root",
            "role_bindings-TOTAL_FORMS": "0",
            "role_bindings-INITIAL_FORMS": "0",
        },
    )
    assert ApiKey.objects.get().name == "ci"


def test_the_pages_carry_our_name(client, db):
    page = client.get("/admin/login/").content.decode()
    title = page[page.index("<title>") : page.index("</title>")]
    assert title.strip().endswith("| Yardmaster")
