"""Kind `http`: redirects, each hop of which is a request of its own."""

from __future__ import annotations

import socket

import pytest
from django.conf import settings

from tests.jobs.executors.attempts import in_loop
from tests.jobs.executors.servers import OK, Server, answer, ask, attempt, header


def test_redirects_are_not_followed_unless_asked():
    server = Server([answer(302, Location="/next"), OK])
    outcome = in_loop(ask(server))
    assert not outcome.ok
    assert outcome.result["status"] == 302
    assert outcome.result["headers"]["location"] == "/next"
    assert len(server.requests) == 1


def test_redirects_are_followed_when_asked():
    moves = [answer(302, Location="/two?x=y"), answer(307, Location="three"), OK]
    server = Server(moves)
    outcome = in_loop(ask(server, follow_redirects=True))
    assert outcome.ok
    lines = [request.partition(b"\r\n")[0] for request in server.requests]
    assert lines == [b"GET / HTTP/1.1", b"GET /two?x=y HTTP/1.1", b"GET /three HTTP/1.1"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://127.0.0.2:{port}/#@127.0.0.1",
        "http://2130706434:{port}/",
        "http://[::ffff:127.0.0.2]:{port}/",
        "http://user@127.0.0.1:{port}/",
        "https://127.0.0.2:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
        "http://[/",
        "http://127.0.0.1:{port}\\@127.0.0.2/",
        "http://127.0.0.1:{port}/\x7f",
        "http://127.0.0.1:{port}/ä",
    ],
)
def test_a_chain_of_redirects_does_not_lead_to_a_private_address(location):
    private = Server()

    async def work():
        first = Server()
        async with first.on(), private.on("127.0.0.2", first.port):
            last = answer(302, Location=location.format(port=first.port))
            first.answer = [answer(302, Location="/a"), answer(301, Location="/b"), last]
            outcome = await attempt({"url": first.url(), "follow_redirects": True})
            return outcome, first

    outcome, first = in_loop(work())
    assert (outcome.ok, outcome.is_permanent, outcome.error_type) == (False, True, "AddressRefused")
    assert len(first.requests) == 3
    assert private.connections == 0


def test_more_than_five_redirects_are_too_many():
    five = Server([answer(302, Location="/on")] * 5 + [OK])
    assert in_loop(ask(five, follow_redirects=True)).ok
    endless = Server(answer(302, Location="/on"))
    outcome = in_loop(ask(endless, follow_redirects=True))
    assert (outcome.ok, outcome.is_permanent) == (False, True)
    assert len(endless.requests) == 6


CREDENTIALS = {
    "Authorization": "Bearer x",
    "COOKIE": "a=b",
    "X-Api-Key": "k",
    "X-Auth-Token": "t",
    "Accept": "text/plain",
}


def test_credentials_stay_with_the_origin_they_were_meant_for():
    other = Server()

    async def work():
        first = Server()
        async with first.on(), other.on():
            first.answer = [
                answer(307, Location="/same"),
                answer(307, Location=other.url("/other")),
            ]
            payload = {"url": first.url(), "headers": CREDENTIALS, "method": "POST", "body": "b"}
            outcome = await attempt({**payload, "follow_redirects": True}, fence=9)
            return outcome, first

    outcome, first = in_loop(work())
    assert outcome.ok
    assert [header(first.requests[1], name) for name in CREDENTIALS] == list(CREDENTIALS.values())
    [request] = other.requests
    got = {name: header(request, name) for name in CREDENTIALS}
    assert got == {**dict.fromkeys(CREDENTIALS), "Accept": "text/plain"}
    assert header(request, "X-Job-Fence") == "9"
    assert request.endswith(b"\r\n\r\nb")


def test_cookies_are_neither_kept_nor_stored():
    server = Server(
        [answer(302, Location="/next", Set_Cookie="a=b; Path=/"), answer(200, Set_Cookie="c")]
    )
    outcome = in_loop(ask(server, follow_redirects=True))
    assert outcome.ok
    assert header(server.requests[1], "Cookie") is None
    assert "set-cookie" not in outcome.result["headers"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (303, "POST", "GET"),
        (302, "POST", "GET"),
        (301, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (302, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
    ],
)
def test_a_redirect_changes_the_method_as_its_status_says(status, method, then):
    server = Server([answer(status, Location="/next"), answer(200)])
    assert in_loop(ask(server, method=method, json=1, follow_redirects=True)).ok
    request = server.requests[1]
    assert request.startswith(then.encode())
    assert request.endswith(b"\r\n\r\n" if then != method else b"\r\n\r\n1")
    assert header(request, "Content-Type") == (None if then != method else "application/json")


def test_a_hop_that_is_not_reached_leaves_no_doubt_about_the_one_before():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        settings.HTTP_ALLOW.append(f"127.0.0.1:{port}")
        server = Server(answer(307, Location=f"http://127.0.0.1:{port}/"))
        outcome = in_loop(ask(server, method="POST", follow_redirects=True))
    assert (outcome.error_type, outcome.effect_unknown) == ("ConnectionError", False)


def test_a_lost_answer_after_a_redirect_to_a_safe_method_leaves_no_doubt():
    server = Server([answer(303, Location="/next"), b""])
    outcome = in_loop(ask(server, method="POST", follow_redirects=True))
    assert (outcome.ok, outcome.effect_unknown) == (False, False)
