"""The guard alone: nothing here opens a connection."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from jobs.executors.address_guard import (
    AddressPolicy,
    AddressRefused,
    Target,
    read_address,
    read_url,
    why_not_public,
)
from tests.jobs.executors.attempts import corpus

ANY_PORT = AddressPolicy(frozenset(range(1, 65_536)), ())


def resolve(host: str) -> list[str]:
    """What the system makes of a host, odd spellings included."""
    found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
    return [str(where[0]) for *_, where in found]


def check(policy: AddressPolicy, url: str, *addresses: str) -> None:
    target = read_url(url)
    policy.check(target, [read_address(text) for text in addresses or resolve(target.host)])


def test_the_corpus_of_urls_is_large_enough():
    assert len(set(corpus("ssrf_urls.txt"))) >= 60


@pytest.mark.parametrize("url", corpus("ssrf_urls.txt"))
def test_no_url_of_the_corpus_is_let_through(url):
    # What the system cannot resolve leads nowhere either; labels that are too long are UnicodeErrors.
    with pytest.raises((AddressRefused, UnicodeError, socket.gaierror)):
        check(ANY_PORT, url)


@pytest.mark.parametrize("address", corpus("special_addresses.txt"))
def test_special_addresses_are_not_public(address):
    assert why_not_public(ip_address(address))


@pytest.mark.parametrize("address", corpus("public_addresses.txt"))
def test_addresses_beside_the_special_ones_are_public(address):
    assert why_not_public(ip_address(address)) is None


def test_one_private_address_among_public_ones_refuses_the_name():
    policy = AddressPolicy.read([], ["80"])
    check(policy, "http://example.com/", "8.8.8.8", "2606:4700:4700::1111")
    for addresses in (("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8"), ("8.8.8.8", "::1")):
        with pytest.raises(AddressRefused):
            check(policy, "http://example.com/", *addresses)


def test_a_name_without_addresses_is_refused():
    with pytest.raises(AddressRefused):
        ANY_PORT.check(read_url("http://example.com/"), [])


def test_public_addresses_are_reached_on_the_listed_ports_only():
    policy = AddressPolicy.read([], ["80", "443"])
    check(policy, "http://example.com/", "8.8.8.8")
    check(policy, "https://example.com/", "8.8.8.8")
    for url in ("http://example.com:22/", "https://example.com:8443/", "http://example.com:6379/"):
        with pytest.raises(AddressRefused, match="port"):
            check(policy, url, "8.8.8.8")


@pytest.mark.parametrize(
    ("allowance", "url", "address", "is_allowed"),
    [
        ("10.0.0.0/8", "http://a.test/", "10.1.2.3", True),
        ("10.0.0.0/8", "http://a.test:8000/", "10.1.2.3", False),
        ("10.0.0.0/8:8000", "http://a.test:8000/", "10.1.2.3", True),
        ("10.0.0.0/8:8000", "http://a.test/", "10.1.2.3", False),
        ("10.0.0.0/8:8000", "http://a.test:8000/", "192.168.0.1", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/", "127.0.0.1", True),
        ("127.0.0.1:8080", "http://127.0.0.1/", "127.0.0.1", False),
        ("127.0.0.1:8080", "http://127.0.0.2:8080/", "127.0.0.2", False),
        # The mapped form is another address, and has no business being in use.
        ("127.0.0.1:8080", "http://[::ffff:127.0.0.1]:8080/", "::ffff:127.0.0.1", False),
        ("billing.internal:8080", "http://billing.internal:8080/", "10.0.0.9", True),
        ("billing.internal:8080", "http://BILLING.internal.:8080/", "10.0.0.9", True),
        ("billing.internal:8080", "http://billing.internal/", "10.0.0.9", False),
        ("billing.internal:8080", "http://x.billing.internal:8080/", "10.0.0.9", False),
        ("billing.internal", "http://billing.internal/", "10.0.0.9", True),
        ("billing.internal", "http://billing.internal:9000/", "10.0.0.9", False),
        ("[::1]:8080", "http://[::1]:8080/", "::1", True),
        ("[::1]:8080", "http://[::2]:8080/", "::2", False),
        ("[fd00::/8]:8000", "http://a.test:8000/", "fd12::1", True),
        ("[fd00::]/8:8000", "http://a.test:8000/", "fd12::1", True),
        ("[fd00::]/8", "http://a.test/", "fd12::1", True),
        ("fd00::/8", "http://a.test/", "fd12::1", True),
        ("fd00::/8", "http://a.test/", "fe80::1", False),
        ("example.com:8443", "https://example.com:8443/", "8.8.8.8", True),
    ],
)
def test_allowances_open_what_they_name_and_no_more(allowance, url, address, is_allowed):
    policy = AddressPolicy.read([allowance], ["80", "443"])
    if is_allowed:
        check(policy, url, address)
    else:
        with pytest.raises(AddressRefused):
            check(policy, url, address)


def test_an_allowed_address_does_not_excuse_a_private_one_beside_it():
    policy = AddressPolicy.read(["10.0.0.5:8000"], ["80"])
    with pytest.raises(AddressRefused):
        check(policy, "http://a.test:8000/", "10.0.0.5", "10.0.0.6")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.256:80",
        "10.1:80",
        "a b:80",
        "host:0",
        "host:70000",
        "host:http",
        "host/8",
        "host:1:2",
        "*.internal:80",
        "http://host:80",
        "[::1",
        "[::1]:",
        "[::1]x",
        "[host]:80",
        "[abc]:80",
        "[fd00::]/129",
        "[fd00::1]/8:80",
        "[fd00::/8]/8",
    ],
)
def test_a_wrong_allowance_is_named_and_not_skipped(entry):
    with pytest.raises(ValueError, match=r"is not|port"):
        AddressPolicy.read([entry], ["80"])


@pytest.mark.parametrize("port", ["", "0", "65536", "http", "٨٠", "-1", "80-90"])
def test_a_wrong_port_is_not_skipped(port):
    with pytest.raises(ValueError, match="not a port"):
        AddressPolicy.read([], [port])


def test_refusals_do_not_tell_the_address():
    with pytest.raises(AddressRefused) as caught:
        check(AddressPolicy.read([], ["80"]), "http://db.internal/", "10.11.12.13")
    assert "db.internal" in str(caught.value)
    assert "private" in str(caught.value)
    assert "10.11" not in str(caught.value)


def test_refusals_name_the_setting_that_opens_the_way():
    policy = AddressPolicy.read([], ["80"])
    for url, address in (("http://inside/", "10.0.0.1"), ("http://outside:81/", "93.184.216.34")):
        with pytest.raises(AddressRefused, match="YARDMASTER_HTTP_ALLOW"):
            check(policy, url, address)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", Target("http", "example.com", 80, "/")),
        (
            "HTTPS://Example.COM:8443/a/../b?c=d#e",
            Target("https", "example.com", 8443, "/a/../b?c=d"),
        ),
        ("http://example.com?q=1", Target("http", "example.com", 80, "/?q=1")),
        ("http://[2001:DB8::1]:81/%0d%0a", Target("http", "2001:db8::1", 81, "/%0d%0a")),
        ("https://a_b.example.com:/x", Target("https", "a_b.example.com", 443, "/x")),
        ("http://example.com/@user:80/", Target("http", "example.com", 80, "/@user:80/")),
    ],
)
def test_urls_are_taken_apart(url, target):
    assert read_url(url) == target
    assert read_url(target.url) == target


def test_a_user_in_a_url_is_refused_by_that_name():
    with pytest.raises(AddressRefused, match="user or password"):
        read_url("http://user:password@example.com/")


def test_a_host_has_at_most_253_characters():
    assert read_url(f"http://{'a.' * 125}com/")
    with pytest.raises(AddressRefused):
        read_url(f"http://{'a.' * 126}com/")


def test_a_url_has_at_most_2048_characters():
    head = "http://example.com/"
    assert read_url(head + "a" * (2048 - len(head)))
    with pytest.raises(AddressRefused):
        read_url(head + "a" * (2049 - len(head)))
