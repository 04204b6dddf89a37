"""Names of images, and which of them a node may run. Pure.

busybox                      that image, with the tag `latest`
busybox:1.36                 with this tag
busybox:*                    with any tag or digest
registry.example.com/team/*  all images below this prefix
busybox@sha256:…             exactly this content
*                            any image
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_REFERENCE = 512
HUB = "docker.io"

_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A reference as it is meant: with its registry, and with its tag or digest."""

    name: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def read_image(text: str) -> Image:
    """Return what a reference means, or raise ``ValueError``."""
    found = _REFERENCE.fullmatch(text) if len(text) <= MAX_REFERENCE else None
    if found is None:
        raise ValueError("not the name of an image, such as busybox:1.36")
    # With a digest, engines take no notice of the tag.
    digest = found["digest"]
    return Image(_full_name(found["name"]), None if digest else found["tag"] or "latest", digest)


def _full_name(name: str) -> str:
    """Say what engines add: the registry, and the library of the Docker Hub."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = first, rest
    else:
        domain, path = HUB, name
    if domain in ("index.docker.io", HUB):
        domain = HUB
        path = path if "/" in path else f"library/{path}"
    return f"{domain}/{path}"


def is_allowed(image: Image, patterns: Iterable[str]) -> bool:
    """Tell whether one of these patterns allows the image; raise ``ValueError`` for one that is none."""
    return any(_allows(pattern, image) for pattern in patterns)


def check_pattern(pattern: str) -> None:
    """Raise ``ValueError`` when this is no pattern."""
    _allows(pattern, Image("none", "none", None))


def _allows(pattern: str, image: Image) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith("/*"):
        prefix = pattern.removesuffix("/*")
        # Two more parts keep a lone domain from being taken for an image, and the Hub's name whole.
        return image.name.startswith(read_image(f"{prefix}/x/x").name.removesuffix("x/x"))
    if pattern.endswith(":*"):
        return image.name == read_image(pattern.removesuffix(":*")).name
    return image == read_image(pattern)
