"""No cell of anything that is exported is a formula, whatever people call their things."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from authn.keys import create_key
from authn.models import ApiKey
from clusters.binding import cluster_bound
from clusters.csv_text import csv_line, formula_safe
from clusters.models import AuditEntry
from jobs.engine import bulk, workflows
from jobs.engine.workflows import NewNode
from jobs.models import BulkOperation, Failure, FailureHour, Schedule, Workflow
from tests.api.conftest import Api
from tests.factories import make_attempt, make_job, make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

CORPUS = Path(__file__).parent.parent / "corpora" / "csv_formulas.txt"
LINES = [line for line in CORPUS.read_text().splitlines() if not line.startswith("#")]
EVIL = [codecs.decode(line, "unicode_escape") for line in LINES]
# PostgreSQL stores no NUL.
STORED = [text for text in EVIL if "\0" not in text]
BEGINNINGS = tuple("=+-@\t\r")


def is_formula(cell: str) -> bool:
    """Our own negative numbers are the one thing that may begin so."""
    return cell.startswith(BEGINNINGS) and not cell.removeprefix("-").replace(".", "").isdigit()


def cells(text: str) -> list[list[str]]:
    rows = [*csv.reader(io.StringIO(text, newline=""), strict=True)]
    assert {len(row) for row in rows} == {len(rows[0])}, "a text has left its cell"
    return rows[1:]


def check(text: str) -> int:
    """Hold an export against the rule; how many of its cells are marked as text."""
    found = [cell for row in cells(text) for cell in row]
    assert not [cell for cell in found if is_formula(cell)]
    return sum(cell.startswith("'") for cell in found)


@pytest.fixture
def named_badly(db: None) -> Iterator[dict[str, str]]:
    """A row of each sort for every case; the ids of the first of each."""
    now, first = timezone.now(), {}
    with cluster_bound("alpha"):
        for number, text in enumerate(STORED):
            make_queue(text, description=text)
            job = make_job(
                "failed", type=text, queue=text, error=text, enqueued_by=text, tags=[text[:60]]
            )
            make_attempt(job, error=text)
            # What no verb would take: an older version, or somebody else's hand, may have left it.
            schedule = make_schedule(name=f"s{number}")
            named = {"name": text, "description": text, "type": text, "queue": text}
            Schedule.objects.filter(pk=schedule.pk).update(**named)
            flow = workflows.create(f"w{number}", [NewNode(schedule.pk)], by=text)
            Workflow.objects.filter(pk=flow.pk).update(name=text, description=text)
            make_node(host=text, version=text[:40])
            operation = bulk.request("cancel", {"all": True}, by="test", reason="x")
            BulkOperation.objects.filter(pk=operation.pk).update(requested_by=text, reason=text)
            columns: dict[str, Any] = {
                **dict.fromkeys(("error_type", "message", "frame", "type", "queue"), text),
                **{"job_id": job.pk, "example": text, "count": 1},
                **{"first_seen_at": now, "last_seen_at": now},
            }
            name = f"{number:016x}"
            hour = now.replace(minute=0, second=0, microsecond=0)
            Failure.objects.create(fingerprint=name, **columns)
            FailureHour.objects.create(fingerprint=name, starts_at=hour, count=1)
            AuditEntry.objects.create(
                **dict.fromkeys(("actor", "target_id", "reason"), text),
                **dict.fromkeys(("verb", "target_type"), text[:20]),
                before={text: text},
                filter={"queue": text},
            )
            _, plain = create_key(f"k{number}", "viewer", ["alpha"])
            ApiKey.objects.filter(public_id=plain.split("_")[1]).update(name=text)
            ids = {
                "job": str(job.pk),
                "schedule": str(schedule.pk),
                "workflow": str(flow.pk),
                "failure": name,
            }
            first = first or ids
        yield first


COMMANDS = [
    *("jobs list --limit 200", "jobs show <job>", "jobs attempts <job>"),
    *("queues list", "schedules list", "schedules show <schedule>", "failures list"),
    *("failures show <failure>", "nodes list", "workflows list", "workflows show <workflow>"),
    *(
        "jobs bulk-list",
        "workflows runs <workflow>",
        "audit list --limit 200",
        "audit export",
        "keys list",
    ),
]


def test_no_cell_of_a_command_is_a_formula(run: Any, named_badly: dict[str, str]) -> None:
    """Red without: what marks a cell."""
    for command in COMMANDS:
        words = [
            named_badly[word[1:-1]] if word.startswith("<") else word for word in command.split()
        ]
        done = run(*words, "-o", "csv")
        assert done.code == 0, (command, done.err)
        is_whole = words[1] in ("list", "bulk-list", "export")
        least = len(STORED) // 2 if is_whole else int(words[1] in ("show", "attempts"))
        assert check(done.out) >= least, command


def test_no_cell_of_an_export_of_the_audit_is_a_formula(named_badly: dict[str, str]) -> None:
    api = Api(create_key("operator", "operator", ["alpha"])[1])
    response: Any = api.get("alpha/audit/export")
    assert response.status_code == 200
    assert check(b"".join(response).decode()) >= 4 * len(STORED) // 2


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_a_cell_is_marked_where_it_would_be_run(text: str) -> None:
    [row] = cells("a,b,c\n" + csv_line(["x", formula_safe(text), "y"]))
    assert (row[0], row[2]) == ("x", "y")
    assert not is_formula(row[1]) and row[1].removeprefix("'").lstrip("\t") != ""
    if text.startswith(BEGINNINGS):
        assert row[1].startswith("'")


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(EVIL) >= 20 and len({text[0] for text in EVIL}) >= 8
