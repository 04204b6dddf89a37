"""The README and the pages below docs/, as readers find them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = "README.md"
PAGES = [README, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def all_pages() -> str:
    return "\n".join(map(page, PAGES))


def prose(text: str) -> str:
    """A page without its examples, in which nothing is a heading or a link."""
    fenceless = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", "", fenceless)


def examples(text: str) -> str:
    """What `prose` leaves out."""
    fenced = re.findall(r"^ *```.*?\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"^ {4}.*$", text, re.MULTILINE)])


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    kept = re.sub(r"[^\w\- ]", "", shown.strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> set[str]:
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        name = slug(heading)
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def links(text: str) -> list[str]:
    """Where the links and pictures of a page lead: those of the text, and those at its foot."""
    without_code = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "`", prose(text), flags=re.DOTALL)
    inline = re.findall(r"\]\(<?([^)\s>]+)>?(?: [^)]*)?\)", without_code)
    return inline + re.findall(
        r"^ {0,3}\[[^\]]+\]: *<?(\S+?)>?(?: .*)?$", without_code, re.MULTILINE
    )
