"""The settings of the tests: our own ones, read from an environment made for one run of the suite.

    YARDMASTER_TEST_BACKEND       sqlite (default) or postgresql
    YARDMASTER_TEST_POSTGRES_URL  a server to use instead of the embedded one
    YARDMASTER_TEST_FSYNC=1       write through to the disk, as in production
    YARDMASTER_TEST_AGAIN=1       the same was run on another database: leave out what is the same on all
    YARDMASTER_TEST_DIR           where all files go; a temporary directory otherwise

Whatever else a developer has set for an installation of his own is left out.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

BACKEND = os.environ.get("YARDMASTER_TEST_BACKEND", "sqlite")
if BACKEND not in ("sqlite", "postgresql"):
    raise SystemExit(f"YARDMASTER_TEST_BACKEND is {BACKEND!r}; use sqlite or postgresql")
KEEPS_FSYNC = os.environ.get("YARDMASTER_TEST_FSYNC", "") in ("1", "yes", "true")
RUNS_AGAIN = os.environ.get("YARDMASTER_TEST_AGAIN", "") in ("1", "yes", "true")

# pytest-xdist's workers inherit their controller's directory, and with it the database server.
OWNS_TEST_DIR = "YARDMASTER_TEST_DIR" not in os.environ
if OWNS_TEST_DIR:
    # The name tells whose it is; a run that was killed is cleaned up after by a later one.
    os.environ["YARDMASTER_TEST_DIR"] = tempfile.mkdtemp(prefix=f"yardmaster-tests-{os.getpid()}-")
TEST_DIR = Path(os.environ["YARDMASTER_TEST_DIR"])
EMBEDDED_POSTGRES_DIR = TEST_DIR / "postgresql"


def _address(database: str) -> str:
    if BACKEND == "sqlite":
        return f"sqlite:///{TEST_DIR}/unused-{database}.sqlite3"
    if given := os.environ.get("YARDMASTER_TEST_POSTGRES_URL"):
        return urlunsplit(urlsplit(given)._replace(path=f"/yardmaster_{database}"))
    # In the query, because a host in front of the path would be taken in lower case.
    host = quote(str(EMBEDDED_POSTGRES_DIR / "socket"))
    return f"postgresql://postgres@/yardmaster_{database}?host={host}"


def remove_test_dir(owner: int = os.getpid()) -> None:
    """Remove the run's files; not in a forked child, nor where somebody chose the directory."""
    if OWNS_TEST_DIR and os.getpid() == owner:
        shutil.rmtree(TEST_DIR, ignore_errors=True)


# Also for runs that end before pytest is configured, such as one with a wrong flag.
atexit.register(remove_test_dir)

for _name in list(os.environ):
    if _name.startswith("YARDMASTER_") and not _name.startswith("YARDMASTER_TEST_"):
        del os.environ[_name]
os.environ.update(
    YARDMASTER_HOME=str(TEST_DIR / "home"),
    YARDMASTER_SECRET_KEY="only-for-tests-0123456789-0123456789-0123456789-0123456789",
    YARDMASTER_SECRETS_KEY="8HqvV0xZ2mTn4LrJcY7bPaKdWgSeUf3iQ1tRy9Xo5Bk",
    # Tests ask as fast as they can.
    YARDMASTER_REQUESTS_PER_SECOND="0",
    YARDMASTER_DATABASE_URL=_address("control"),
    YARDMASTER_CLUSTERS=f"alpha={_address('alpha')},beta={_address('beta')}",
)

from config.settings import *  # noqa: E402, F403
from config.settings import DATABASES, STATIC_ROOT  # noqa: E402

# WhiteNoise warns of a missing directory, and a warning is an error here.
Path(STATIC_ROOT).mkdir(parents=True, exist_ok=True)

for _alias, _database in DATABASES.items():
    if BACKEND == "sqlite":
        # Files, not memory: threads and processes of the tests share them.
        _database["TEST"] = {"NAME": str(TEST_DIR / f"{_alias}.sqlite3")}
        if not KEEPS_FSYNC:
            _database["OPTIONS"]["init_command"] = _database["OPTIONS"]["init_command"].replace(
                "synchronous=FULL", "synchronous=OFF"
            )

    else:
        # Tests lay out many rows in one open transaction, and a busy machine takes its time for it.
        _database["OPTIONS"]["options"] += " -c idle_in_transaction_session_timeout=300s"

# The slowness that protects passwords would only slow the tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Tests send bad credentials by the hundred, all from one address; those of the limit set it.
TRIES_PER_MINUTE = 1_000_000
