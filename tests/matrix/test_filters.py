"""What callers put into the query of an address never reaches a database as a name or a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
from django.http import HttpResponse
from django.test import Client

from authn.keys import create_key
from clusters.health import watch
from tests.matrix.endpoints import Endpoint, endpoints
from tests.matrix.test_matrix import QUERIES
from tests.matrix.things import Things, filled, make_things

CORPORA = Path(__file__).parent.parent / "corpora"
READS = [one for one in endpoints() if one.method == "GET" and not one.is_bare]
_client = Client(raise_request_exception=False)
Ask = Callable[[str], Any]


def lines(name: str) -> list[str]:
    text = (CORPORA / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


_PAIRS = [line.partition(" ") for line in lines("filter_injections.txt")]
NAMES = [(unquote(name), value or "1") for name, _, value in _PAIRS]
VALUES = lines("filter_values.txt")


@pytest.fixture
def things(db: None) -> Things:
    watch.forget()
    return make_things("alpha", 1)


@pytest.fixture
def ask(db: None) -> Ask:
    key = create_key("asker", "admin", ["alpha"])[1]

    def get(address: str) -> Any:
        response: Any = _client.get(address, headers={"x-api-key": key})
        if response.streaming:
            response = HttpResponse(response.getvalue(), status=response.status_code)
        return response

    return get


def address_of(endpoint: Endpoint, things: Things, query: str) -> str:
    queries = "&".join(one for one in (QUERIES.get(endpoint.key, ""), query) if one)
    return filled(endpoint.surface, f"{endpoint.route}?{queries}".rstrip("?"), "alpha", things)


def told(response: Any) -> str:
    """An answer without what is of its moment."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "<time>", response.content.decode())
    return re.sub(r'"(uptime|now|age|lag)[a-z_]*": ?[-\d.]+', "<moment>", text)


def test_the_corpora_are_as_large_as_they_should_be() -> None:
    assert len(NAMES) >= 40 and len(VALUES) >= 25 and len(READS) >= 100


@pytest.mark.once
def test_a_parameter_that_there_is_not_is_refused_by_its_name(things: Things, ask: Ask) -> None:
    """Red without: the check of the names of a query."""
    wrong = []
    query = urlencode(NAMES, quote_via=quote)
    for endpoint in READS:
        if endpoint.surface != "native":
            continue
        response = ask(address_of(endpoint, things, query))
        said = response.json().get("errors", ()) if response.status_code == 400 else ()
        if kept := {name for name, _ in NAMES} - {error["field"] for error in said}:
            wrong.append(f"{endpoint.path}: {response.status_code}, takes {sorted(kept)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.once
def test_a_parameter_that_a_dialect_does_not_know_changes_nothing(things: Things, ask: Ask) -> None:
    """By its own rules it may be refused, or passed over; it is never understood."""
    wrong = []
    for endpoint in READS:
        if endpoint.surface == "native" or endpoint.path.endswith(("stream", "metrics")):
            continue
        plain = ask(address_of(endpoint, things, ""))
        response = ask(address_of(endpoint, things, urlencode(NAMES, quote_via=quote)))
        is_refused = 400 <= response.status_code < 500
        if not is_refused and (response.status_code, told(response)) != (
            plain.status_code,
            told(plain),
        ):
            wrong.append(f"{endpoint.key}: {plain.status_code} {plain.content[:200]!r}")
            wrong.append(f"  with them {response.status_code} {response.content[:200]!r}")
    assert not wrong, "\n".join(wrong)


# Lists, each with the words of a query that take any text.
ASKED = {
    "/jm-api/alpha/jobs": ("queue", "type", "tag", "unique_key", "node", "metadata"),
    "/jm-api/alpha/schedules": ("queue", "type", "search"),
    "/jm-api/alpha/failures": ("queue", "type"),
    "/jm-api/alpha/audit": ("actor", "verb", "target_id"),
    "/clusters/alpha/asyncjobs/v1/tasks": ("queue", "type"),
    "/clusters/alpha/tork/jobs": ("q",),
    "/clusters/alpha/scheduler/api/v1/scheduler/jobs": (
        "search",
        "jobType",
        "tag",
        "createdBy",
        "sortBy",
    ),
}


@pytest.mark.parametrize("address", ASKED)
def test_a_value_is_compared_and_nothing_more(address: str, things: Things, ask: Ask) -> None:
    """Red without: parameters of statements, and the escapes of patterns."""
    assert things["job"] in told(ask("/jm-api/alpha/jobs"))
    for word in ASKED[address]:
        for value in VALUES:
            response = ask(f"{address}?{word}={quote(value, safe='')}")
            assert response.status_code in (200, 400), (word, value, response.content)
            if response.status_code == 200:
                found = [
                    name for name in things.values() if len(name) > 8 and name in told(response)
                ]
                assert not found, (word, value, found)
