"""Kind `http`: no job reaches what it must not, whatever names resolve to."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess

import pytest
from django.conf import settings

from jobs.executors import Outcome, http_addresses
from tests.jobs.executors.attempts import corpus, in_loop
from tests.jobs.executors.servers import Server, ask, attempt


def test_no_url_of_the_corpus_is_reached(monkeypatch):
    opened: list[object] = []
    monkeypatch.setattr(
        http_addresses.Gate, "open", lambda self, addr_info: opened.append(addr_info)
    )

    async def work() -> dict[str, Outcome]:
        return {url: await attempt({"url": url}) for url in corpus("ssrf_urls.txt")}

    for url, outcome in in_loop(work()).items():
        assert not outcome.ok, url
        # A name that does not exist here may exist a minute later.
        assert outcome.is_permanent or outcome.error_type == "ConnectionError", url
    assert opened == []


def test_an_allowance_opens_one_port_only():
    async def work():
        one, other = Server(), Server()
        async with one.on(), other.on():
            settings.HTTP_ALLOW.pop()
            return await attempt({"url": one.url()}), await attempt({"url": other.url()}), other

    allowed, refused, other = in_loop(work())
    assert allowed.ok
    assert (refused.error_type, refused.is_permanent) == ("AddressRefused", True)
    assert other.connections == 0


def test_an_allowance_that_cannot_be_read_opens_nothing():
    server = Server()
    settings.HTTP_ALLOW.append("10.0.0.1/8")
    outcome = in_loop(ask(server))
    assert (outcome.error_type, outcome.is_permanent) == ("Misconfigured", False)
    assert "10.0.0.1/8" in (outcome.error or "")
    assert server.connections == 0


def test_a_name_with_one_private_address_is_not_reached_at_all(names):
    names["mixed.test"] = [["127.0.0.1", "127.0.0.2"]]
    server = Server()

    async def work():
        async with server.on():
            return await attempt({"url": server.url(host="mixed.test")})

    outcome = in_loop(work())
    assert outcome.error_type == "AddressRefused"
    assert server.connections == 0


def test_a_name_that_changes_its_address_is_reached_where_it_was_checked(names):
    names["rebinding.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    checked, private = Server(), Server()

    async def work():
        async with checked.on(), private.on("127.0.0.2", checked.port):
            url = checked.url(host="rebinding.test")
            return await attempt({"url": url}), await attempt({"url": url})

    first, second = in_loop(work())
    assert first.ok
    assert second.error_type == "AddressRefused"
    assert (checked.connections, private.connections) == (1, 0)
    # Once for each attempt: what is looked up is what is checked is what is used.
    assert names.lookups == ["rebinding.test", "rebinding.test"]


@pytest.mark.parametrize("elsewhere", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3"]])
def test_no_socket_is_made_for_an_address_that_was_not_checked(monkeypatch, names, elsewhere):
    """Were the resolver of the client to be wrong, the last gate would still hold."""
    names["gate.test"] = [["127.0.0.1"]]
    real = http_addresses.CheckedAddresses.resolve

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        [good] = await real(self, host, port, family)
        return [{**good, "host": address} for address in elsewhere]

    monkeypatch.setattr(http_addresses.CheckedAddresses, "resolve", resolve)
    checked, private = Server(), Server()

    async def work():
        async with checked.on(), private.on("127.0.0.2", checked.port):
            return await attempt({"url": checked.url(host="gate.test")})

    outcome = in_loop(work())
    assert (outcome.error_type, outcome.is_permanent) == ("AddressRefused", True)
    assert (checked.connections, private.connections) == (0, 0)


def test_the_next_address_is_tried_where_one_does_not_answer(names):
    names["two.test"] = [["127.0.0.9", "127.0.0.1"]]
    server = Server()

    async def work():
        async with server.on():
            settings.HTTP_ALLOW.append(f"127.0.0.9:{server.port}")
            return await attempt({"url": server.url(host="two.test")})

    assert in_loop(work()).ok


def test_tls_asks_for_the_name_and_checks_who_answers(names, tmp_path):
    names["yard.test"] = [["127.0.0.1"]]
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=yard.test", "-days", "1"]
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    asked: list[str | None] = []
    context.sni_callback = lambda connection, name, _: asked.append(name)
    server = Server()

    async def work():
        async with server.on(ssl=context):
            url = server.url(host="yard.test").replace("http:", "https:")
            return await attempt({"url": url, "method": "POST"})

    outcome = in_loop(work())
    assert asked == ["yard.test"]
    assert "certificate verify failed" in (outcome.error or "")
    assert (outcome.is_permanent, outcome.effect_unknown) == (False, False)
    assert server.requests == []
