"""Where an ``http`` job may connect to. Pure: it looks nothing up and opens nothing.

An address is allowed when it is public and its port is in the list of ports, or when the
installation allows it by name, address or network. A name is only as good as *all* the addresses it
resolves to: one private address among public ones is how a name is turned against the machine that
resolves it. The caller resolves once, asks ``AddressPolicy.check``, and connects to exactly what was
checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

# What a URL may be made of. Space, controls and what is not ASCII must be percent-encoded; a
# backslash is a slash to some readers and a letter to others.
_URL = re.compile(r"[!#-;=?-\[\]_a-~^]+")
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
# Entries of the list of allowances. The prefix length may stand on either side of the bracket.
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)(/\d+)?\](/\d+)?(?::(?P<port>\d+))?")
_PLAIN = re.compile(r"([A-Za-z0-9._-]+)(/\d+)?(?::(?P<port>\d+))?")

# Written out, because what ``is_global`` says changes with the version of Python and is true for
# addresses that lead inside: translated, relayed and site-local ones.
_SPECIAL_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "set aside for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        # Looks public, but answers inside one cloud only, with what belongs to the machine.
        ("168.63.129.16/32", "a metadata service"),
    )
)
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "set aside for protocols"),  # Teredo, benchmarks, ORCHID
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4, which hides an IPv4 address"),
        ("3fff::/20", "for documentation"),
    )
)
# Outside of global unicast all is refused; these names only make the message clearer.
_NAMED_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "a mapped IPv4 address"),
        ("::/96", "an embedded IPv4 address"),
        ("64:ff9b::/96", "a translated IPv4 address"),
        ("64:ff9b:1::/48", "a translated IPv4 address"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)


_OPENED_BY = "YARDMASTER_HTTP_ALLOW names what may be reached besides public addresses"


class AddressRefused(Exception):
    """The address may not be reached from here. The text is fit to show to whoever made the job."""


def why_not_public(address: Address) -> str | None:
    """Return what is special about an address, or None when it belongs to the public internet."""
    if isinstance(address, IPv4Address):
        return next((what for network, what in _SPECIAL_V4 if address in network), None)
    if address not in _GLOBAL_UNICAST_V6:
        return next((what for network, what in _NAMED_V6 if address in network), "reserved")
    return next((what for network, what in _SPECIAL_V6 if address in network), None)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart once, so that nobody downstream reads it in another way."""

    scheme: str
    # Lower case; an IPv6 address without its brackets.
    host: str
    port: int
    # From the first slash on, without the fragment.
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def read_url(url: str) -> Target:
    """Take an absolute URL apart; raise ``AddressRefused`` when it is not one we would follow."""
    if len(url) > MAX_URL:
        raise AddressRefused(f"a URL has at most {MAX_URL} characters")
    if not _URL.fullmatch(url):
        raise AddressRefused("a URL is printable ASCII without spaces; percent-encode the rest")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise AddressRefused("not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise AddressRefused("a URL begins with http:// or https://")
    if "@" in parts.netloc:
        raise AddressRefused("a URL must not carry a user or password")
    host, port = _read_authority(parts.netloc)
    path = parts.path or "/"
    if not path.startswith("/"):
        raise AddressRefused("not a URL")
    if parts.query:
        path += "?" + parts.query
    return Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path)


def _read_authority(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        text, bracket, rest = authority[1:].partition("]")
        try:
            # A scope ("%eth0") names an interface of ours, which is nobody else's business.
            host = str(IPv6Address(text if bracket and "%" not in text else ""))
        except ValueError:
            raise AddressRefused("what is in brackets is not an IPv6 address") from None
        if rest and not rest.startswith(":"):
            raise AddressRefused("not a URL")
        return host, _read_port(rest[1:]) if len(rest) > 1 else None
    host, _, port_text = authority.partition(":")
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise AddressRefused("the host is not a name or an address; write other alphabets as xn--")
    return host.lower(), _read_port(port_text) if port_text else None


def _read_port(text: str) -> int:
    # ``isdigit`` alone also takes digits of other alphabets.
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65_535:
        raise AddressRefused(f"{text[:10]!r} is not a port")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Allowance:
    """One entry of the list. Without a port of its own it opens the ports of public addresses."""

    # A name is trusted with whatever it resolves to: who allows it must own its DNS.
    name: str | None
    network: Network | None
    port: int | None


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What this installation lets ``http`` jobs reach."""

    ports: frozenset[int]
    allowances: tuple[_Allowance, ...]

    @classmethod
    def read(cls, allow: Iterable[str], ports: Iterable[str]) -> AddressPolicy:
        """Read the two settings; raise ``ValueError`` that names the entry that is wrong.

        Allowances are ``name:8080``, ``10.0.0.5:8080``, ``10.0.0.0/8``, ``10.0.0.0/8:8000``,
        ``[fd00::1]:8080``, ``[fd00::/8]:8000`` and ``fd00::/8``.
        """
        numbers = []
        for text in ports:
            try:
                numbers.append(_read_port(text))
            except AddressRefused as error:
                raise ValueError(f"ports: {error}") from None
        return cls(frozenset(numbers), tuple(_read_allowance(entry) for entry in allow))

    def check(self, target: Target, addresses: Sequence[Address]) -> None:
        """Raise ``AddressRefused`` unless every one of the addresses may be reached."""
        if not addresses:
            raise AddressRefused(f"{target.host} has no address")
        for address in addresses:
            self._check_one(target, address)

    def _check_one(self, target: Target, address: Address) -> None:
        if any(self._matches(allowance, target, address) for allowance in self.allowances):
            return
        # The address itself is not named: it would tell an outsider how our network is laid out.
        if what := why_not_public(address):
            raise AddressRefused(
                f"http jobs may not reach {target.host[:100]}: an address of it is {what}; {_OPENED_BY}"
            )
        if target.port not in self.ports:
            raise AddressRefused(
                f"http jobs may not reach port {target.port} of {target.host[:100]}; {_OPENED_BY}"
            )

    def _matches(self, allowance: _Allowance, target: Target, address: Address) -> bool:
        if allowance.port is None:
            if target.port not in self.ports:
                return False
        elif allowance.port != target.port:
            return False
        if allowance.network is not None:
            return address.version == allowance.network.version and address in allowance.network
        return allowance.name == target.host.rstrip(".")


def _read_allowance(entry: str) -> _Allowance:
    if network := _read_network(entry):
        return _Allowance(None, network, None)
    match = _BRACKETED.fullmatch(entry) or _PLAIN.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is not a name, an address or a network")
    try:
        port = _read_port(match["port"]) if match["port"] else None
    except AddressRefused as error:
        raise ValueError(f"{entry!r}: {error}") from None
    text = "".join(part for part in match.groups()[:-1] if part)
    if network := _read_network(text):
        return _Allowance(None, network, port)
    # What ends in a number, or stands in brackets, was meant to be an address.
    is_name = _HOST.fullmatch(text) and not text.rpartition(".")[2].isdigit()
    if not is_name or entry.startswith("["):
        raise ValueError(f"{entry!r} is not a name, an address or a network")
    return _Allowance(text.lower().rstrip("."), None, port)


def _read_network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def read_address(text: str) -> Address:
    """Read an address as ``getaddrinfo`` gives it, without the scope some have."""
    return ip_address(text.partition("%")[0])
