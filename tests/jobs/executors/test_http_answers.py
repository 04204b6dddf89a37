"""Kind `http`: what is read of an answer, and what is kept."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib

import pytest

from jobs.executors import http_answers
from tests.jobs.executors.attempts import in_loop
from tests.jobs.executors.servers import Server, answer, ask, attempt


def gzip_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(megabytes)) + packer.flush()


def test_a_gzip_bomb_costs_neither_memory_nor_time(monkeypatch):
    unfolded = 0
    real = http_answers.Inflated.feed

    def feed(self, data):
        nonlocal unfolded
        for piece in real(self, data):
            unfolded += len(piece)
            yield piece

    monkeypatch.setattr(http_answers.Inflated, "feed", feed)
    bomb = answer(200, gzip_bomb(200), Content_Encoding="gzip")
    assert len(bomb) < 2 << 20
    server = Server(bomb)

    async def work():
        async with server.on():
            await attempt({"url": server.url()})  # what is loaded once is loaded now
            tracemalloc.start()
            began_at = time.monotonic()
            outcome = await attempt({"url": server.url()})
            return outcome, time.monotonic() - began_at, tracemalloc.get_traced_memory()[1]

    try:
        outcome, seconds, peak = in_loop(work())
    finally:
        tracemalloc.stop()
    assert outcome.ok
    assert outcome.result["is_truncated"]
    assert len(outcome.result["body"]) <= 32 << 10
    assert seconds < 10
    assert unfolded < 3 << 20  # of both attempts
    assert peak < 8 << 20


def test_an_endless_answer_is_left_after_a_mebibyte():
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 500 << 20:
            writer.write(b"x" * (64 << 10))
            await writer.drain()
            sent += 64 << 10

    outcome = in_loop(ask(Server(pour)))
    assert outcome.ok
    assert outcome.result["body"] == "x" * (32 << 10)
    assert outcome.result["is_truncated"]
    assert sent < 50 << 20


def test_compressed_data_that_unfolds_to_nothing_is_left_too():
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n\x78\x9c")
        while sent < 500 << 20:
            writer.write(b"\0\0\0\xff\xff" * 13_000)  # empty blocks
            await writer.drain()
            sent += 65_000

    outcome = in_loop(ask(Server(pour)))
    assert outcome.result["is_truncated"]
    assert sent < 50 << 20


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("identity", bytes),
    ],
)
def test_compressed_answers_are_unpacked(coding, pack):
    text = "Täglich grüßt " * 1000
    outcome = in_loop(ask(Server(answer(200, pack(text.encode()), Content_Encoding=coding))))
    assert outcome.result["body"] == text
    assert outcome.result["is_truncated"] is False


def test_an_answer_that_is_not_what_it_says_is_kept_as_far_as_it_goes():
    broken = gzip.compress(b"a" * 100)[:20] + b"\xff" * 50
    outcome = in_loop(ask(Server(answer(200, broken, Content_Encoding="gzip"))))
    assert outcome.ok
    assert outcome.result["is_truncated"]


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("grün".encode(), "text/plain", "grün"),
        ("grün".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grün"),
        ("grün".encode("latin-1"), "text/plain", "gr\ufffdn"),
        (b"a\0b\x1b[2J\x7fc\td\r\n", "text/plain", "a\ufffdb\ufffd[2J\ufffdc\td\r\n"),
        (b"uryyb", "text/plain; charset=rot13", "uryyb"),
        (b"abc", "text/plain; charset=" + "x" * 1000, "abc"),
        (b"abc", 'text/plain; charset="\xff"', "abc"),
        ("grün".encode("utf-16"), "text/plain; charset=utf-16", "grün"),
    ],
)
def test_the_body_is_kept_as_text_that_can_be_stored(body, content_type, text):
    outcome = in_loop(ask(Server(answer(200, body, Content_Type=content_type))))
    assert outcome.result["body"] == text


@pytest.mark.parametrize("body", [b'"' * (40 << 10), b"\n" * (40 << 10), b"\\" * (900 << 10)])
def test_a_result_fits_where_results_are_kept(body):
    headers = {f"X_{n}": '"' * 300 for n in range(60)}
    outcome = in_loop(ask(Server(answer(200, body, **headers))))
    assert outcome.ok
    assert outcome.result["is_truncated"]
    assert len(json.dumps(outcome.result, ensure_ascii=False)) <= 65_536
    assert len(outcome.result["headers"]) <= 50


def test_headers_of_the_answer_are_cleaned_and_joined():
    raw = b"HTTP/1.1 200 OK\r\nVia: a\r\nVIA: b\r\nX-Raw: \xff\xc3\xa4\r\nContent-Length: 0\r\n\r\n"
    kept = in_loop(ask(Server(raw))).result["headers"]
    assert kept == {"via": "a, b", "x-raw": "\ufffdä", "content-length": "0"}
