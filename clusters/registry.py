"""Which clusters exist: read once at start from the environment and, if there is one, a TOML file.

This module is imported by the settings, so it knows nothing of models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters.policy import CLUSTER_ID, explicit_problems

# First path segments below the API base that are no cluster.
MAX_ENVIRONMENT = 20
# The environment in which nothing is tried out and whoever destroys is asked twice.
PRODUCTION = "production"
_TABLE_KEYS = frozenset({"database_url", "database_url_file", "title", "environment", "settings"})
# The other one is read by ``config.limits``.
_TABLES = frozenset({"clusters", "callers"})
RESERVED_IDS = frozenset(
    {"clusters", "whoami", "swagger", "openapi.json", "metrics", "token", "readyz"}
    | {"keys", "roles", "access-audit"}
)


@dataclass(frozen=True)
class Cluster:
    """One isolation unit: an id, a master database and the settings this process sets explicitly."""

    id: str
    database_url: str = field(repr=False)
    title: str = ""
    # What the screen writes beside the name, such as `production`, which also makes it ask twice.
    environment: str = ""
    explicit_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        return alias_of(self.id)


def alias_of(cluster_id: str) -> str:
    """The Django database alias of a cluster; prefixed so that no id can mean the control database."""
    return f"cluster-{cluster_id}"


def id_of(alias: str) -> str:
    """The id of the cluster whose database has this alias."""
    return alias.removeprefix("cluster-")


def read_clusters(listing: str, toml_path: str, problems: list[str]) -> dict[str, Cluster]:
    """Clusters from ``id=url,id=url`` and from the ``[clusters.<id>]`` tables of a TOML file."""
    clusters: dict[str, Cluster] = {}
    for part in filter(None, (p.strip() for p in listing.split(","))):
        cluster_id, separator, url = part.partition("=")
        if not separator or not url:
            # The part is not quoted back: it may be half of a password that holds a comma.
            problems.append(
                "YARDMASTER_CLUSTERS: expected id=url,id=url "
                "(write a comma inside a password as %2C)"
            )
            continue
        _add(clusters, Cluster(cluster_id.strip(), url.strip()), "YARDMASTER_CLUSTERS", problems)
    if toml_path:
        for cluster in _from_toml(Path(toml_path), problems):
            _add(clusters, cluster, f"YARDMASTER_CONFIG ({toml_path})", problems)
    return clusters


def _add(clusters: dict[str, Cluster], cluster: Cluster, source: str, problems: list[str]) -> None:
    if not CLUSTER_ID.match(cluster.id):
        problems.append(
            f"{source}: cluster id {cluster.id[:40]!r} must be 1 to 25 lower-case letters, digits "
            "or '-', and neither begin nor end with '-'"
        )
    elif cluster.id in RESERVED_IDS:
        problems.append(f"{source}: cluster id {cluster.id!r} is reserved")
    elif cluster.id in clusters:
        problems.append(f"{source}: cluster {cluster.id!r} is configured twice")
    else:
        clusters[cluster.id] = cluster


def _from_toml(path: Path, problems: list[str]) -> list[Cluster]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"YARDMASTER_CONFIG: cannot read {path}: {error}")
        return []
    for key in document.keys() - _TABLES:
        problems.append(
            f"{path}: unknown table or key {key!r}; known are [clusters.<id>] and [callers.<name>]"
        )
    tables = document.get("clusters", {})
    if not isinstance(tables, dict):
        problems.append(f"{path}: 'clusters' must be a table")
        return []
    return [
        cluster
        for cluster_id, table in tables.items()
        if (cluster := _cluster_table(path, cluster_id, table, problems)) is not None
    ]


def _cluster_table(path: Path, cluster_id: str, table: Any, problems: list[str]) -> Cluster | None:
    where = f"{path}: [clusters.{cluster_id}]"
    if not isinstance(table, dict):
        problems.append(f"{where} must be a table")
        return None
    for key in table.keys() - _TABLE_KEYS:
        problems.append(f"{where} unknown key {key!r}")
    environment = str(table.get("environment", ""))
    if len(environment) > MAX_ENVIRONMENT:
        problems.append(f"{where} environment may have {MAX_ENVIRONMENT} characters")
    url, url_file = table.get("database_url"), table.get("database_url_file")
    if (url is None) == (url_file is None):
        problems.append(f"{where} needs exactly one of database_url and database_url_file")
        return None
    if url_file is not None:
        try:
            url = Path(path.parent, str(url_file)).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{where} database_url_file: {error}")
            return None
    explicit = table.get("settings", {})
    if not isinstance(explicit, dict):
        problems.append(f"{where} settings must be a table")
        explicit = {}
    problems.extend(f"{where} settings: {problem}" for problem in explicit_problems(explicit))
    return Cluster(cluster_id, str(url), str(table.get("title", "")), environment, explicit)
