"""alpha/audit"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from clusters import audit
from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from tests.api.conftest import Api, check_problem
from tests.factories import make_queue

PATH = "alpha/audit"
pytestmark = pytest.mark.usefixtures("alpha")


def make_entry(**columns: Any) -> AuditEntry:
    told = {"actor": "key:ci", "verb": "jobs.cancel", "target_type": "job", "target_id": "1"}
    entry: AuditEntry = AuditEntry.objects.create(**{**told, **columns})
    entry.refresh_from_db()
    return entry


def listed(api: Api, query: str = "") -> list[str]:
    response = api.get(f"{PATH}?{query}")
    assert response.status_code == 200, response.content
    return [item["id"] for item in response.json()["items"]]


def test_a_deed_is_found_with_all_that_is_known_of_it(admin: Api) -> None:
    make_queue("mail")
    done = admin.post("alpha/queues/mail/pause", {"reason": "it moves"})
    assert done.status_code == 200
    (item,) = admin.get(PATH).json()["items"]
    assert item == {
        "id": item["id"],
        "at": item["at"],
        "actor": "key:admin-1",
        "credential": "api_key",
        "surface": "native",
        "address": "127.0.0.1",
        "request_id": done["X-Request-ID"],
        "verb": "queues.pause",
        "target_type": "queue",
        "target_id": "mail",
        "filter": None,
        "count": 1,
        "reason": "it moves",
        "before": None,
        "after": None,
    }
    assert listed(admin, f"request_id={item['request_id']}") == [item["id"]]


def test_a_change_tells_what_was_before_and_what_is_after(admin: Api) -> None:
    make_queue("mail", description="letters")
    admin.patch("alpha/queues/mail", {"max_concurrency": 3, "description": "letters"})
    (item,) = admin.get(PATH).json()["items"]
    assert (item["before"], item["after"]) == ({"max_concurrency": None}, {"max_concurrency": 3})


def test_pages_go_from_the_newest_to_the_oldest_and_back(api: Api) -> None:
    made = [str(make_entry(target_id=str(number)).pk) for number in range(5)][::-1]
    first = api.get(f"{PATH}?limit=2").json()
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    found = [item["id"] for page in (first, second, third) for item in page["items"]]
    assert found == made and third["next"] is None
    assert api.get(third["previous"]).json()["items"] == second["items"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor", "user:anna"),
        ("verb", "queues.pause"),
        ("surface", "admin"),
        ("target_type", "queue"),
        ("target_id", "mail"),
        ("request_id", "abc"),
    ],
)
def test_a_filter_chooses(api: Api, column: str, value: str) -> None:
    wanted = make_entry(**{column: value})
    make_entry()
    assert listed(api, f"{column}={value}") == [str(wanted.pk)]


def test_a_time_chooses_its_beginning_and_not_its_end(api: Api) -> None:
    old, new = make_entry(), make_entry()
    border = new.at.isoformat().replace("+00:00", "Z")
    assert str(new.pk) in listed(api, f"since={border}")
    assert str(new.pk) not in listed(api, f"until={border}")
    later = (new.at + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    assert {*listed(api, f"until={later}")} == {str(old.pk), str(new.pk)}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("actor=a%00b", "actor"),
        ("verb=" + "x" * 61, "verb"),
        ("limit=0", "limit"),
        ("before=x", "before"),
        ("actor__regex=x", "actor__regex"),
        ("cursor=x", "cursor"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(api: Api, query: str, field: str) -> None:
    problem = check_problem(api.get(f"{PATH}?{query}"), 400, "invalid")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("path", [PATH, f"{PATH}/export"])
def test_operators_and_admins_read_it_and_viewers_do_not(
    path: str, viewer: Api, api: Api, admin: Api, make_key: Callable[..., str]
) -> None:
    check_problem(viewer.get(path), 403, "permission_denied")
    assert api.get(path).status_code == admin.get(path).status_code == 200
    check_problem(Api(make_key("admin", "beta")).get(path), 404, "not_found")


def test_another_cluster_has_an_audit_of_its_own(make_key: Callable[..., str]) -> None:
    make_entry()
    with cluster_bound("beta"):
        other = make_entry()
    both = Api(make_key("operator", "*"))
    assert [item["id"] for item in both.get("beta/audit").json()["items"]] == [str(other.pk)]
    text = b"".join(both.get("beta/audit/export")).decode()  # type: ignore[arg-type]
    assert text.count("\n") == 2 and str(other.pk) in text


def exported(api: Api, query: str = "") -> list[dict[str, str]]:
    response = api.get(f"{PATH}/export?{query}")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="audit-alpha.csv"'
    text = b"".join(response).decode()  # type: ignore[arg-type]
    return [*csv.DictReader(io.StringIO(text))]


def test_an_export_has_every_column_of_every_row(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    made = [make_entry(count=number, after={"n": number}) for number in range(5)]
    rows = exported(api)
    assert [row["id"] for row in rows] == [str(entry.pk) for entry in made[::-1]]
    assert [*rows[0]] == list(audit.COLUMNS)
    assert (rows[0]["count"], json.loads(rows[0]["after"])) == ("4", {"n": 4})
    assert exported(api, "verb=queues.pause") == []
    monkeypatch.setattr(audit, "MAX_EXPORTED", 3)
    assert len([*audit.csv_lines(AuditEntry.objects.all(), audit.MAX_EXPORTED)]) == 4


def test_rows_of_one_moment_are_exported_once_each(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    at = make_entry().at
    for _ in range(6):
        make_entry(at=at)
    rows = exported(api)
    assert len(rows) == len({row["id"] for row in rows}) == 7


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=cmd|' /C calc'!A0", '=HYPERLINK("x")']


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_an_export_is_a_formula(api: Api, text: str) -> None:
    make_entry(reason=text, target_id=text, actor=text)
    (row,) = exported(api)
    for name in ("reason", "target_id", "actor"):
        assert row[name].startswith("'"), row[name]
    for cell in row.values():
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_control_characters_and_line_breaks_stay_in_their_cell(api: Api) -> None:
    make_entry(reason='a\nb,"c"\x1b[31m')
    (row,) = exported(api)
    assert row["reason"] == 'a\nb,"c"\\x1b[31m'


def test_a_list_is_one_question(api: Api) -> None:
    for _ in range(3):
        make_entry()
    with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
        listed(api, "actor=key:ci&limit=2")
    assert len([one for one in queries if '"audit"' in one["sql"]]) == 1
