"""What all tests of executors need."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_allowed(settings):
    settings.HTTP_ALLOW = []
    settings.HTTP_PORTS = ["80", "443"]


class Names(dict[str, list[list[str]]]):
    """Names and what they resolve to: each look-up takes the next answer, the last one stays."""

    def __init__(self) -> None:
        self.lookups: list[str] = []


@pytest.fixture
def names(monkeypatch):
    known = Names()
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in known:
            return real(host, port, *args, **kwargs)
        known.lookups.append(host)
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [entry for address in addresses for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known
