"""What `manage.py up` keeps below YARDMASTER_HOME: keys, demo clusters, the first admin, credentials."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from django.contrib.auth import get_user_model

from authn.keys import create_key, find_principal
from authn.models import ALL_CLUSTERS, ApiKey, Role, UserRole

ADMIN_NAME = "admin"
KEY_NAME = "development"
# What needs a grant; `up` runs on the machine of whoever it gives them to.
GRANTS = ["container", "shell"]
DEMO_CLUSTERS = {"payroll": "Payroll", "notifications": "Notifications"}
# Short waits, because somebody watches.
DEMO_SETTINGS = {
    "retry_base_seconds": 1,
    "lease_seconds": 12,
    "heartbeat_seconds": 2,
    "cancel_grace_seconds": 3,
    "drain_grace_seconds": 8,
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `up` tells its owner; the file is the only place where the two secrets are readable."""

    url: str
    api_key: str
    admin_user: str
    admin_password: str | None


def make_home(home: Path) -> None:
    """Create the directory for its owner only; one that exists is left as it is."""
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700)


def make_secret_key(home: Path) -> None:
    """Keep a random key, so that sessions and cursors outlive a restart."""
    path = home / "secret-key"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(48) + "\n")


def make_work_keys(home: Path) -> None:
    """Keep random keys: one that encrypts payloads with secrets, which are lost without it, and one
    that signs what webhooks are told."""
    for name in ("secrets-key", "webhook-key"):
        if not (home / name).exists():
            write_private(home / name, secrets.token_urlsafe(48) + "\n")


def write_demo_clusters(home: Path) -> Path:
    """Describe the demo clusters, each with an SQLite database of its own; return the file."""
    lines = [
        "# Written by `manage.py up` at each start.",
        "# For clusters of your own set YARDMASTER_CLUSTERS or YARDMASTER_CONFIG.",
    ]
    for cluster_id, title in DEMO_CLUSTERS.items():
        url = f"sqlite:///{quote(str(home / f'{cluster_id}.sqlite3'))}"
        lines += [
            "",
            f"[clusters.{cluster_id}]",
            f"title = {json.dumps(title)}",
            f"database_url = {json.dumps(url)}",
            f"[clusters.{cluster_id}.settings]",
            *(f"{name} = {value}" for name, value in DEMO_SETTINGS.items()),
        ]
    path = home / "clusters.toml"
    write_private(path, "\n".join(lines) + "\n")
    return path


def make_credentials(home: Path, url: str) -> tuple[Credentials, bool]:
    """The admin and the API key of this installation, and whether this made its first admin.

    What the file says and the database confirms stays; only what is missing is made anew.
    """
    path = home / "dev-credentials.json"
    old = _read(path)
    password, is_first = _ensure_admin(old.get("admin_password"))
    api_key = old.get("api_key") or ""
    if find_principal(api_key) is None:
        _, api_key = create_key(
            _free_key_name(), role=Role.ADMIN, clusters=[ALL_CLUSTERS], grants=GRANTS
        )
    credentials = Credentials(url, api_key, ADMIN_NAME, password)
    write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
    return credentials, is_first


def _ensure_admin(known_password: str | None) -> tuple[str | None, bool]:
    """The password of the admin, where it is known, and whether the user is new."""
    users = get_user_model().objects
    if users.filter(username=ADMIN_NAME).exists():
        return known_password, False
    password = known_password or secrets.token_urlsafe(15)
    admin = users.create_superuser(ADMIN_NAME, password=password)
    UserRole.objects.create(
        user=admin, cluster_id=ALL_CLUSTERS, role=Role.ADMIN, granted_kinds=GRANTS
    )
    return password, True


def _free_key_name() -> str:
    taken = set(ApiKey.objects.filter(name__startswith=KEY_NAME).values_list("name", flat=True))
    candidates = (KEY_NAME, *(f"{KEY_NAME}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)


def _read(path: Path) -> dict[str, str | None]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Replace a file, readable by its owner only from its first moment on."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
