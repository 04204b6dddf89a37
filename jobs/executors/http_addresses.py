"""Where a request may go: its host is looked up once, and sockets are made to what was checked.

``getaddrinfo`` blocks, so names are looked up on threads; nothing else of these requests starts one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from jobs.executors.address_guard import (
    Address,
    AddressRefused,
    Target,
    read_address,
)

# Looking up the name, and then connecting with the TLS handshake, may take this long each.
CONNECT_SECONDS = 10.0
# Enough that some name servers which do not answer leave room for the others.
_LOOKUPS = ThreadPoolExecutor(32, "lookup")


async def resolve(target: Target) -> list[Address]:
    """Return all addresses of the host; an address stands for itself."""
    with contextlib.suppress(ValueError):
        return [read_address(target.host)]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.run_in_executor(_LOOKUPS, _look_up, target)
    except UnicodeError:
        raise AddressRefused(f"{target.host[:100]} is not a host name") from None
    return list(dict.fromkeys(read_address(str(where[0])) for *_, where in found))


def _look_up(target: Target) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))


class CheckedAddresses(AbstractResolver):
    """Answers with what was checked, so that no second look-up can say anything else."""

    def __init__(self, target: Target, addresses: Sequence[Address]) -> None:
        self._target = target
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=self._target.port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class Gate:
    """Makes the sockets of one exchange, and none to an address that was not checked."""

    def __init__(self, target: Target, addresses: Sequence[Address]) -> None:
        self._checked = {(address, target.port) for address in addresses}
        self._sockets: list[socket.socket] = []
        self.has_refused = False

    def open(self, addr_info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = addr_info
        if (read_address(str(where[0])), where[1]) not in self._checked:
            self.has_refused = True
            # The client takes no other error from here as "this address will not do".
            raise PermissionError("not an address that was checked")
        made = socket.socket(family, kind, protocol)
        self._sockets.append(made)
        return made

    def cut(self) -> None:
        """Break the connections off, whatever is still to be sent."""
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
