"""Arguments that commands about keys, users and roles share."""

from __future__ import annotations

from argparse import ArgumentParser

from jobs.executors import GRANTED_KINDS


def add_grants(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--grant",
        action="append",
        default=[],
        choices=GRANTED_KINDS,
        help="a kind of work that no role covers",
    )


def add_clusters(parser: ArgumentParser, *, required: bool) -> None:
    """Some clusters by their ids, or all: not both."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--cluster", action="append", metavar="ID", help="may be given again")
    where.add_argument("--all-clusters", action="store_true", help="also those of the future")
