"""What is wrong with settings that are each well-formed; told at every start, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from jobs.executors import NODE_KINDS
from jobs.executors.address_guard import AddressPolicy
from jobs.executors.container_host import check_engine, check_images, read_directories
from jobs.executors.file_roots import read_roots

MIN_SECRET_KEY = 32
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+\Z")  # noqa: DUO138  a slash begins each part
# First path segments that are ours already.
_TAKEN_PATHS = frozenset(
    {"admin", "static", "livez", "readyz", "healthz", "clusters"}
    | {"asyncjobs", "v1", "scheduler", "api"}
    | {"forge", "queue", "cron", "storage", "metrics", "jobs"}
    | {"tork", "nodes", "queues", "scheduled-jobs", "tasks", "health"}
)
# What may be opened to callers without credentials, and how far; the native API and the screen never.
DIALECTS = ("asyncjobs", "forge", "scheduler", "tork")
ROLES = ("viewer", "operator", "admin")
_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+\Z")
_ED25519_KEY = re.compile(r"[0-9a-fA-F]{64}\Z")


def configuration_problems(
    *,
    secret_key: str,
    webhook_key: str,
    public_url: str,
    base_path: str,
    anonymous_roles: Mapping[str, str],
    certificate_roles: Mapping[str, str],
    verification_key: str,
    allowed_hosts: Sequence[str],
    worker_kinds: Sequence[str],
    procedures: Collection[str],
    file_roots: Sequence[str],
    container_engine: str,
    container_images: Sequence[str],
    container_bind_mounts: Sequence[str],
    http_allow: Sequence[str],
    http_ports: Sequence[str],
    clusters: Collection[str],
    logged_clusters: Sequence[str],
    chosen_cluster: str,
    default_cluster: str,
) -> list[str]:
    """One sentence for each mistake, naming the variable."""
    problems = []
    if secret_key and len(secret_key) < MIN_SECRET_KEY:
        problems.append(f"YARDMASTER_SECRET_KEY: needs at least {MIN_SECRET_KEY} characters")
    if webhook_key and len(webhook_key) < MIN_SECRET_KEY:
        problems.append(f"YARDMASTER_WEBHOOK_KEY: needs at least {MIN_SECRET_KEY} characters")
    if public_url and not _PUBLIC_URL.match(public_url):
        problems.append(
            "YARDMASTER_PUBLIC_URL: expected an address such as https://jobs.example.com, without a path"
        )
    if not _PATH.match(base_path) or base_path.split("/")[1] in _TAKEN_PATHS:
        problems.append(
            "YARDMASTER_BASE_PATH: expected a path such as /jm-api, of its own beside "
            + ", ".join(sorted(f"/{path}" for path in _TAKEN_PATHS))
        )
    for variable, roles in (
        ("YARDMASTER_ANONYMOUS", anonymous_roles),
        ("YARDMASTER_CERTIFICATE_ROLES", certificate_roles),
    ):
        problems += [
            f"{variable}: {dialect[:20]}={role[:20]} is not one of {', '.join(DIALECTS)} "
            f"with a role of {', '.join(ROLES)}"
            for dialect, role in roles.items()
            if dialect not in DIALECTS or role not in ROLES
        ]
    if verification_key and not _ED25519_KEY.match(verification_key):
        problems.append(
            "YARDMASTER_ASYNCJOBS_VERIFICATION_KEY: expected an ed25519 public key as 64 hex digits"
        )
    if not allowed_hosts:
        problems.append("YARDMASTER_ALLOWED_HOSTS: names no host, so nothing would be answered")
    if not worker_kinds or (unknown := set(worker_kinds) - {*NODE_KINDS}):
        problems.append(
            "YARDMASTER_WORKER_KINDS: "
            + (f"unknown {', '.join(sorted(unknown))}; " if worker_kinds else "names none; ")
            + f"known are {', '.join(NODE_KINDS)}"
        )
    if "procedure" in worker_kinds and not procedures:
        problems.append(
            "YARDMASTER_WORKER_KINDS: names procedure, and YARDMASTER_PROCEDURES_CONFIG allows none"
        )
    if "files" in worker_kinds and not file_roots:
        problems.append(
            "YARDMASTER_WORKER_KINDS: names files, but YARDMASTER_FILE_ROOTS names no root"
        )
    try:
        read_roots(file_roots)
    except ValueError as error:
        problems.append(f"YARDMASTER_FILE_ROOTS: {error}")
    if "container" in worker_kinds and not container_engine:
        problems.append(
            "YARDMASTER_WORKER_KINDS: names container, but YARDMASTER_CONTAINER_ENGINE names no engine"
        )
    problems += _container_problems(container_engine, container_images, container_bind_mounts)
    try:
        AddressPolicy.read(list(http_allow), list(http_ports))
    except ValueError as error:
        problems.append(f"YARDMASTER_HTTP_ALLOW or YARDMASTER_HTTP_PORTS: {error}")
    for variable, chosen in (
        ("YARDMASTER_CLUSTER", chosen_cluster),
        ("YARDMASTER_DEFAULT_CLUSTER", default_cluster),
        *(("YARDMASTER_REQUEST_LOG", logged) for logged in logged_clusters if logged != "*"),
    ):
        if chosen and clusters and chosen not in clusters:
            problems.append(
                f"{variable}: there is no cluster {chosen[:40]!r}; "
                f"configured are {', '.join(clusters)}"
            )
    return problems


def _container_problems(engine: str, images: Sequence[str], mounts: Sequence[str]) -> list[str]:
    problems = []
    checks: dict[str, Callable[[], object]] = {
        "ENGINE": lambda: check_engine(engine),
        "IMAGES": lambda: check_images(images),
        "BIND_MOUNTS": lambda: read_directories(mounts),
    }
    for what, check in checks.items():
        try:
            check()
        except ValueError as error:
            problems.append(f"YARDMASTER_CONTAINER_{what}: {error}")
    return problems
