"""Graphs of work: what a script draws, and the nested list that says the same without it.

A page puts ``graph(…)`` into the context of its live part, includes ``ui/graph.html`` there, and
``ui/graph_scripts.html`` once in the page around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Larger ones are a list alone.
MAX_DRAWN = 200
# Deeper ones are listed beside each other; each then says what it comes after.
MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Node:
    """A box of the graph."""

    key: str
    label: str
    # A word that ``{% state %}`` writes; none in a definition.
    state: str | None = None
    # The page that it leads to.
    url: str | None = None
    # A few words beneath the label, such as a type.
    note: str = ""
    # The keys of the nodes right before it.
    after: Sequence[str] = field(default_factory=tuple)
    # Whether those after it go on if it fails: its arrows are dashed.
    is_lenient: bool = False


class Item(NamedTuple):
    """A line of the nested list."""

    node: Node
    # What it comes after, where the nesting does not say so.
    after: list[str]
    # Whether a list within it follows, and how many lists end after it.
    opens: bool
    closes: range


def graph(name: str, title: str, nodes: Sequence[Node]) -> dict[str, Any]:
    """What ``ui/graph.html`` shows; ``name`` is one of its own on the page, ``title`` a sentence."""
    known = {node.key: node for node in nodes}
    before = {node.key: [key for key in node.after if key in known] for node in nodes}
    edges = [
        {"from": key, "to": node.key, "is_lenient": known[key].is_lenient}
        for node in nodes
        for key in before[node.key]
    ]
    drawn = {
        "nodes": [
            {
                "key": node.key,
                "label": node.label,
                "state": node.state,
                "url": node.url,
                "note": node.note,
            }
            for node in nodes
        ],
        "edges": edges,
    }
    return {
        "name": f"graph-{name}",
        "title": title,
        "is_drawn": 0 < len(nodes) <= MAX_DRAWN,
        "drawn": drawn,
        "items": _nested(known, before),
    }


def _nested(known: Mapping[str, Node], before: Mapping[str, list[str]]) -> list[Item]:
    """Each node once, below the first of those that it comes after."""
    order = _walked(known, before)
    items = []
    for number, (key, depth, above) in enumerate(order):
        following = order[number + 1][1] if number + 1 < len(order) else 0
        after = [known[one].label for one in before[key]]
        is_told = before[key] == [above]
        opens = following > depth
        closes = range(max(depth - following, 0))
        items.append(Item(known[key], [] if is_told else after, opens, closes))
    return items


def _walked(
    known: Mapping[str, Node], before: Mapping[str, list[str]]
) -> list[tuple[str, int, str | None]]:
    """The nodes from the roots down: key, depth in the list, and the one whose list it is in."""
    below: dict[str, list[str]] = {}
    for key, parents in before.items():
        if parents:
            below.setdefault(parents[0], []).append(key)
    found: list[tuple[str, int, str | None]] = []
    seen: set[str] = set()
    # No recursion: a chain may be as long as the graph.
    for root in [*(key for key in known if not before[key]), *known]:
        waiting: list[tuple[str, int, str | None]] = [(root, 0, None)]
        while waiting:
            key, depth, above = waiting.pop()
            if key in seen:
                continue
            seen.add(key)
            found.append((key, depth, above))
            is_deepest = depth >= MAX_DEPTH
            within = above if is_deepest else key
            deeper = depth if is_deepest else depth + 1
            waiting += [(child, deeper, within) for child in reversed(below.get(key, []))]
    return found
