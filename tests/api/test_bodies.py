"""Bodies that try to break the parser, the checks or the database."""

from __future__ import annotations

import gc
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings

from config.parsers import MAX_BULK_NODES, MAX_DEPTH, parse_json
from config.problems import InvalidInput
from jobs.models import Job
from tests.api.conftest import Api, check_problem

CORPUS = Path(__file__).parent.parent / "corpora" / "bad_json.txt"
REPEATED = re.compile(rb"<<(\d+)\*(.*?)>>", re.DOTALL)


def cases() -> list[tuple[str, bytes]]:
    found = []
    for line in CORPUS.read_text().splitlines():
        if line and not line.startswith("#"):
            field, _, text = line.partition(" ")
            raw = REPEATED.sub(lambda m: m[2] * int(m[1]), _unescaped(text))
            found.append((_unescaped(field).decode(), raw))
    return found


def _unescaped(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


@pytest.mark.once
@pytest.mark.parametrize(("field", "body"), cases(), ids=lambda value: repr(value)[:50])
def test_a_bad_body_is_refused_by_its_field_and_nothing_is_stored(
    field: str, body: bytes, alpha: object, api: Api
) -> None:
    api.get("alpha/jobs/count")  # connections and policies are there before the clock runs
    # A collection of what other tests left behind is not the request's, nor is what a neighbour on the
    # same processor costs: the quickest of some counts.
    seconds = 1.0
    for _ in range(3):
        gc.disable()
        began = time.process_time()
        response = api.post("alpha/jobs", raw=body)
        seconds = min(time.process_time() - began, seconds)
        gc.enable()
        if seconds < 0.15:
            break
    problem = check_problem(response, 400, response.json()["code"])
    assert field in [error["field"] for error in problem["errors"]]
    assert len(response.content) < 4000
    assert not Job.objects.exists()
    # The bar is 0.05 s for the parser; this is the whole request, in processor time.
    assert seconds < 0.15


def test_the_parser_takes_at_most_50_ms_for_any_body_of_512_kib() -> None:
    slow = {}
    for _, body in cases():
        best = min(_seconds(body) for _ in range(3))
        if best > 0.05:
            slow[body[:60]] = best
    assert not slow


def _seconds(body: bytes) -> float:
    began = time.process_time()
    with suppress(InvalidInput):
        parse_json(body)
    return time.process_time() - began


def test_brackets_inside_strings_are_text() -> None:
    text = "[{" * 5000 + '\\"' + "\\\\"
    assert parse_json(b'{"a": "%s", "b": [1]}' % text.encode())["b"] == [1]


def test_the_deepest_body_that_is_allowed_is_read() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'""', b'"a",', b"1,", b"\\", b'"\\"'])
def test_a_hostile_bulk_body_of_16_mib_is_refused_in_a_second(unit: bytes) -> None:
    body = unit * ((16 << 20) // len(unit))
    began = time.process_time()
    with pytest.raises(InvalidInput):
        parse_json(body, MAX_BULK_NODES)
    assert time.process_time() - began < 1


def test_a_body_above_the_limit_is_413_and_is_not_read(alpha: object, api: Api) -> None:
    body = b'{"type":"demo:echo","payload":"' + b"x" * settings.MAX_BODY_BYTES + b'"}'
    check_problem(api.post("alpha/jobs", raw=body), 413, "body_too_large")
    assert not Job.objects.exists()


def test_a_content_length_above_the_limit_is_enough_for_413(alpha: object, api: Api) -> None:
    response = api.client.generic(
        "POST",
        "/jm-api/alpha/jobs",
        b"{}",
        headers={**api.headers, "content-type": "application/json"},
        CONTENT_LENGTH="9" * 30,
    )
    check_problem(response, 413, "body_too_large")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonp",
        "*/*",
        "",
    ],
)
def test_another_content_type_is_415(alpha: object, api: Api, content_type: str) -> None:
    response = api.post("alpha/jobs", raw=b'{"type":"demo:echo"}', content_type=content_type)
    check_problem(response, 415, "unsupported_media_type")


def test_utf_8_may_be_said(alpha: object, api: Api) -> None:
    response = api.post(
        "alpha/jobs", {"type": "demo:echo"}, content_type="application/json; charset=UTF-8"
    )
    assert response.status_code == 201


class Chunks:
    """What gunicorn gives for a body without a length: it ends by itself."""

    readline = None

    def __init__(self, size: int) -> None:
        self.left = size
        self.was_read = 0

    def read(self, size: int) -> bytes:
        part = b" " * min(size, self.left, 1000)
        self.left -= len(part)
        self.was_read += len(part)
        return part


def _chunked(api: Api, stream: object, is_terminated: bool = True) -> object:
    extra = {"wsgi.input_terminated": True} if is_terminated else {}
    return api.client.generic(
        "POST",
        "/jm-api/alpha/jobs",
        headers={
            **api.headers,
            "content-type": "application/json",
            "transfer-encoding": "chunked",
        },
        **{"wsgi.input": stream, **extra},
    )


def test_a_chunked_body_is_read_no_further_than_one_byte_above_the_limit(
    alpha: object, api: Api
) -> None:
    chunks = Chunks(100 * settings.MAX_BODY_BYTES)
    check_problem(_chunked(api, chunks), 413, "body_too_large")
    assert chunks.was_read == settings.MAX_BODY_BYTES + 1


def test_a_chunked_body_is_parsed(alpha: object, api: Api) -> None:
    problem = check_problem(_chunked(api, Chunks(10)), 400, "invalid")
    assert problem["errors"][0]["field"] == "body"


def test_a_chunked_body_whose_end_the_server_does_not_mark_is_411(alpha: object, api: Api) -> None:
    check_problem(_chunked(api, Chunks(10), is_terminated=False), 411, "length_required")


def test_a_move_takes_no_fields_but_an_empty_object(alpha: object, api: Api) -> None:
    job = api.post("alpha/jobs", {"type": "demo:echo"}).json()["id"]
    problem = check_problem(api.post(f"alpha/jobs/{job}/cancel", {"force": True}), 400, "invalid")
    assert problem["errors"][0]["field"] == "force"
    assert api.post(f"alpha/jobs/{job}/cancel", {}).status_code == 200
