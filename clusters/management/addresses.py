"""Addresses to listen on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from argparse import ArgumentTypeError
from dataclasses import dataclass

WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  they are recognised, not bound  # nosec B104


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def local(self) -> Address:
        """How this host itself reaches it."""
        if self.host not in WILDCARDS:
            return self
        return Address("::1" if self.host == "::" else "127.0.0.1", self.port)

    def problem(self) -> str | None:
        """Why nobody can listen there now, or None."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
                # On some systems the bind alone succeeds beside another listener.
                probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"{self} is in use by another program; stop it or choose another --bind"
            return f"cannot listen on {self}: {error.strerror or error}"
        return None


def address(text: str) -> Address:
    """`127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`, for argparse."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit():
        raise ArgumentTypeError(f"{text[:60]!r} is no address such as 127.0.0.1:8080")
    if not 1 <= int(port[:6]) <= 65535:
        raise ArgumentTypeError(f"{port[:10]} is no port")
    return Address(host, int(port))
