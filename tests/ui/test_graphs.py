"""Graphs of work: the list that stands for them, what the script is given, and the layout's library."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from django.template.loader import render_to_string

from ui import graphs
from ui.graphs import Node, graph

VENDOR = Path(graphs.__file__).parent / "static" / "ui" / "vendor" / "dagre"


class Listed(HTMLParser):
    """The lines of nested lists with their depth, and whether every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.lines: list[tuple[int, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "li":
            self.lines.append((self.open.count("ul"), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.lines and self.open and "li" in self.open and data.strip():
            depth, said = self.lines[-1]
            self.lines[-1] = (depth, f"{said} {data.strip()}".strip())


def lines(nodes: list[Node]) -> list[tuple[int, str]]:
    page = render_to_string("ui/graph.html", {"graph": graph("g", "A graph", nodes)})
    return Listed(page[page.index("<ul") :].rsplit("</div>", 1)[0]).lines


def test_a_node_stands_below_the_first_of_those_that_it_comes_after():
    nodes = [
        Node("a", "load", "succeeded", "/x/a"),
        Node("b", "mail", "running", note="demo:mail", after=["a"], is_lenient=True),
        Node("c", "bill", "failed", after=["a"]),
        Node("d", "close", "blocked", after=["b", "c"]),
        Node("e", "alone", after=["not there"]),
    ]
    assert lines(nodes) == [
        (1, "succeeded load"),
        (2, "running mail demo:mail; if it fails the others go on"),
        (3, "blocked close after mail, bill"),
        (2, "failed bill"),
        (1, "alone"),
    ]


def test_a_long_chain_is_listed_without_an_end_to_the_right():
    chain = [Node(str(n), f"node {n}", after=[str(n - 1)] if n else []) for n in range(500)]
    found = lines(chain)
    assert len(found) == 500
    assert max(depth for depth, _ in found) == graphs.MAX_DEPTH + 1
    assert found[-1] == (graphs.MAX_DEPTH + 1, "node 499 after node 498")


def test_what_runs_in_a_circle_is_listed_all_the_same():
    assert [
        said for _, said in lines([Node("a", "one", after=["b"]), Node("b", "two", after=["a"])])
    ]


def test_a_script_is_given_up_to_200_nodes_and_text_is_no_markup():
    nasty = "</script><b>x"
    made = [Node(str(n), nasty, "ready", f"/x/{n}") for n in range(201)]
    page = render_to_string("ui/graph.html", {"graph": graph("g", nasty, made[:200])})
    [block] = re.findall(r'<script id="graph-g" type="application/json">(.*?)</script>', page)
    drawn = json.loads(block)
    assert len(drawn["nodes"]) == 200
    assert drawn["nodes"][0]["label"] == nasty
    assert nasty not in page
    large = render_to_string("ui/graph.html", {"graph": graph("g", "many", made)})
    assert "<script" not in large
    assert large.count("<li>") == 201


def test_the_library_is_the_one_that_its_paper_names():
    paper = (VENDOR / "README.md").read_text()
    said = dict(re.findall(r"`package/dist/(dagre\.min\.js)`, sha256 `([0-9a-f]{64})`", paper))
    code = (VENDOR / "dagre.min.js").read_bytes()
    assert said == {"dagre.min.js": hashlib.sha256(code).hexdigest()}
    assert "`@dagrejs/dagre` 3.1.3" in paper
    assert "Permission is hereby granted" in (VENDOR / "LICENSE").read_text()
    # The policy of the pages lets no script be made from text.
    assert b"eval(" not in code
    assert b"new Function" not in code
