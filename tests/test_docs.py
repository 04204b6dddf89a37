"""The README and the pages of docs/: every link leads somewhere, and every page can be found."""

from __future__ import annotations

import re
import shlex
from itertools import product

import pytest
from django.core.management import get_commands

from jobs.executors import http_request
from tests.documents import (
    PAGES,
    README,
    ROOT,
    all_pages,
    anchors,
    examples,
    links,
    page,
    prose,
    slug,
)
from tests.test_house import check_management_command

MOST_BYTES = 25_000


def is_external(link: str) -> bool:
    return re.match(r"(https?|mailto):", link) is not None


def target(name: str, link: str) -> tuple[str, str]:
    """The file in the repository and the anchor that a link of a page names."""
    path, _, anchor = link.partition("#")
    where = ((ROOT / name).parent / path).resolve() if path else ROOT / name
    return str(where.relative_to(ROOT)), anchor


def leads_nowhere(name: str, link: str) -> bool:
    path, anchor = target(name, link)
    if not (ROOT / path).exists():
        return True
    return bool(anchor) and (not path.endswith(".md") or anchor not in anchors(page(path)))


@pytest.mark.parametrize("name", [*PAGES, "benchmarks/README.md", "benchmarks/RESULTS.md"])
def test_every_link_leads_somewhere(name):
    relative = [link for link in links(page(name)) if not is_external(link)]
    assert [link for link in relative if leads_nowhere(name, link)] == []


def test_the_table_of_the_readme_names_every_page():
    table = page(README).split("\n## Documentation\n")[1].split("\n## ")[0]
    named = {target(README, link)[0] for link in links(table) if not is_external(link)}
    assert [name for name in PAGES if name != README and name not in named] == []


def test_every_page_has_one_title_and_a_name_of_plain_words():
    for name in PAGES:
        assert len(re.findall(r"^# ", prose(page(name)), re.MULTILINE)) == 1, name
        assert name == README or re.fullmatch(r"docs/(runbooks/)?[a-z]+(-[a-z]+)*\.md", name), name


def test_the_readme_can_be_read_in_one_go():
    assert len(page(README).encode()) <= MOST_BYTES


def commands() -> list[list[str]]:
    """What the pages tell to type after manage.py; of `show|set` each."""
    text = all_pages().replace("\\\n", " ").replace("\\|", "|")
    in_examples = re.findall(r"manage\.py ([a-z][^\n#|&;<>]*)", examples(text))
    in_sentences = re.findall(r"`(?:\.venv/bin/python )?manage\.py ([a-z][^`]*)`", prose(text))
    lines = [shlex.split(line) for line in (*in_examples, *in_sentences)]
    return [list(words) for line in lines for words in product(*(word.split("|") for word in line))]


def test_every_command_that_is_told_of_exists():
    told = commands()
    assert len(told) > 120
    for words in told:
        if "VERB" in words:
            assert words[0] in get_commands()
        else:
            check_management_command(words)


def test_the_page_of_http_requests_names_every_field():
    told = page("docs/http-requests.md")
    assert [field for field in http_request.KEYS if f"`{field}`" not in told] == []


# -- How they are read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Two commands", "two-commands"),
        ("Schedules, calendars and workflows", "schedules-calendars-and-workflows"),
        ("Is there room?", "is-there-room"),
        ("`retry` & `on_lost`", "retry--on_lost"),
        ("What the [API](api.md) says", "what-the-api-says"),
        ("Größe: 2 / 3", "größe-2--3"),
    ],
)
def test_a_heading_has_the_anchor_that_github_gives_it(heading, anchor):
    assert slug(heading) == anchor


def test_of_equal_headings_the_later_ones_are_numbered():
    assert anchors("# A\n\n## Mend\n\n## Mend\n") == {"a", "mend", "mend-1"}


def test_examples_hold_neither_headings_nor_links():
    fenced, indented = "```sh\n# no heading\n[x](no.md)\n```", "    # no heading\n    [x](no.md)"
    text = f"# A\n\n{fenced}\n\n{indented}\n\n`[x](no.md)`\n"
    assert anchors(text) == {"a"}
    assert links(text) == []
    assert links("[![picture](a.webp)](b.md#c)\n\n[d]: e.md\n") == ["a.webp", "b.md#c", "e.md"]


@pytest.mark.parametrize(
    "link",
    ["docs/no-such-page.md", "#no-such-heading", "docs/jobs.md#no-such-heading", "Makefile#up"],
)
def test_a_link_that_leads_nowhere_is_found(link):
    assert leads_nowhere(README, link)
    assert not leads_nowhere(README, "docs/jobs.md#logs")
