"""Where a caller comes from, as far as the server can tell, and where he may come from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]
MAX_NETWORKS = 50


def read_networks(texts: Iterable[str]) -> Networks:
    """Networks and single addresses; ValueError says which text is neither."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip()))
        except ValueError:
            raise ValueError(
                f"{text[:50]!r} is no network such as 10.0.0.0/8 or 2001:db8::/32"
            ) from None
    if len(found) > MAX_NETWORKS:
        raise ValueError(f"more than {MAX_NETWORKS} networks")
    return tuple(found)


@lru_cache(maxsize=1024)
def kept_networks(texts: tuple[str, ...]) -> Networks:
    """Those that were read when they were stored."""
    return read_networks(texts)


def is_within(address: str, networks: Networks) -> bool:
    """Whether an address belongs to one of the networks; what is no address belongs to none."""
    found = plain(address)
    return found is not None and any(found in network for network in networks)


def plain(address: str) -> object | None:
    """An address with IPv4 in its own form, however the socket writes it."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def origin_of(address: str) -> str:
    """Who is counted as one: an address, or the network of 64 bits that one host has in IPv6."""
    found = plain(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found) >> 64 << 64, 64)))
    return str(found) if found is not None else ""


def client_address(peer: str, forwarded: str, proxies: Networks) -> str:
    """The address of the client behind proxies that are trusted: the last that none of them vouches for.

    What stands before it in the header was said by the client, who may say anything.
    """
    address = peer
    for hop in reversed(forwarded.split(",") if forwarded else []):
        if address and not is_within(address, proxies):
            break
        hop = hop.strip()
        if plain(hop) is None:
            break
        address = hop
    return address
