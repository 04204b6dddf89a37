"""Definitions that mean harm, or nothing at all: refused soon, and nothing is stored."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.dialects.tork.errors import Refused
from jobs.dialects.tork.wire import from_yaml
from jobs.dialects.tork.wire.from_yaml import read_yaml
from jobs.dialects.tork.wire.structs import JOB
from jobs.models import Job
from tests.dialects.tork.conftest import Caller, check_message

HOSTILE = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]"
        for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep flow": "[" * 10_000,
    "deep block": "\n".join("  " * n + "a:" for n in range(100)),
    "hundred levels": "tasks: " + "[{parallel: {tasks: " * 100,
    "many values": "tags:\n" + "- a\n" * 60_000,
    "too large": "name: " + "x" * 300_000,
    "tags": "name: !!python/object/apply:os.system [id]",
    "merge": "<<: {name: x}",
    "bad expression": 'name: x\noutput: "{{ ' + "(" * 2000 + ' }}"\ntasks: [{name: t, run: x}]',
    "long expression": 'name: x\noutput: "{{ '
    + "1+" * 20_000
    + '1 }}"\ntasks: [{name: t, run: x}]',
    "bad bytes": "name: \x01\x02",
}


@pytest.mark.once
@pytest.mark.parametrize("sort", HOSTILE)
def test_hostile_yaml_is_refused_soon(sort: str, api: Caller, eventually: Any) -> None:
    took = []

    def soon() -> bool:
        begun = time.process_time()
        check_message(api.yaml(HOSTILE[sort]), 400)
        took.append(time.process_time() - begun)
        # The machine may be busy: the best of some tries is what it takes.
        return min(took) <= 0.1

    eventually(soon)
    assert not Job.objects.exists()


def test_bodies_above_the_limit_are_refused_unread(api: Caller) -> None:
    large = b'{"name": "' + b"x" * 5_000_000 + b'"}'
    for content_type in ("application/json", "text/yaml"):
        response = api.post("jobs", raw=large, content_type=content_type)
        check_message(response, 413, "Request Entity Too Large")
    assert len(large) > from_yaml.MAX_BYTES
    assert not Job.objects.exists()


_texts = st.text(max_size=12) | st.sampled_from(
    ["{{ x }}", "{{", "@", "5m", "x-1", "\x00", "\ud800"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [*JOB.fields, "task", "each", "parallel", "subjob", "list", "run", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=st.dictionaries(st.sampled_from([*JOB.fields, "nosuch"]), _json, max_size=6))
def test_no_document_breaks_anything(document: dict[str, Any], api: Caller) -> None:
    document.pop("wait", None)
    raw = json.dumps(document).encode()
    before = Job.objects.count()
    for content_type in ("application/json", "text/yaml"):
        response = api.post("jobs", raw=raw, content_type=content_type)
        assert response.status_code in (200, 400), response.content
        assert Job.objects.count() == before + (response.status_code == 200)
        before = Job.objects.count()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#%@ \n\t0,?.~", max_size=60))
def test_no_yaml_breaks_anything(text: str) -> None:
    try:
        found = read_yaml(text.encode(), JOB)
    except Refused as refusal:
        assert refusal.status == 400
    else:
        assert isinstance(found, dict)
