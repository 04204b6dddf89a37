"""What a child had yet to say when it died, from the memory that outlives it."""

from __future__ import annotations

import mmap

import pytest

from jobs.engine import last_words
from jobs.engine.last_words import CAPACITY, LastWords, Line

OFFSET = 24


@pytest.fixture
def memory() -> mmap.mmap:
    return mmap.mmap(-1, OFFSET + last_words.SIZE)


def ends(memory: mmap.mmap) -> tuple[LastWords, LastWords]:
    """The child's and the node's."""
    return LastWords(memory, OFFSET), LastWords(memory, OFFSET)


def test_nothing_was_said(memory):
    assert ends(memory)[1].left(0) == ([], 0)


def test_what_was_sent_is_not_said_again(memory):
    child, node = ends(memory)
    lines = [
        Line(7, 1.5, "stdout", None, "ein Gruß"),
        Line(7, 2.5, "log", "warning", "😀 a\tb"),
        Line(8, 3.5, "stderr", None, ""),
    ]
    numbers = [child.add(*line) for line in lines]
    assert node.left(0) == (lines, 0)
    child.sent(numbers[0])
    assert node.left(0) == (lines[1:], 0)
    # Sent, and the child died before it could tell so.
    assert node.left(numbers[1]) == (lines[2:], 0)
    child.sent(numbers[2])
    child.sent(numbers[0])
    assert node.left(0) == ([], 0)


def test_the_oldest_make_room_and_are_counted(memory):
    child, node = ends(memory)
    lines = [Line(1, float(n), "stdout", None, f"{n} " + "é" * 700) for n in range(1000)]
    for line in lines:
        child.add(*line)
    left, lost = node.left(0)
    assert left == lines[lost:]
    assert CAPACITY - 2000 < sum(len(line.text.encode()) + 30 for line in left) <= CAPACITY
    # The beginning was sent from elsewhere, as far as it had not made room.
    assert node.left(100) == (left, lost - 100)


def test_what_made_room_after_it_was_sent_is_not_lost(memory):
    child, node = ends(memory)
    for n in range(1000):
        child.sent(child.add(1, 0.0, "stdout", None, f"{n} " + "x" * 999))
    child.add(2, 1.0, "stdout", None, "the last")
    assert node.left(0) == ([Line(2, 1.0, "stdout", None, "the last")], 0)


@pytest.mark.parametrize("at", range(OFFSET, OFFSET + 80, 4))
def test_memory_that_a_handler_has_written_to_does_no_harm(memory, at):
    child, node = ends(memory)
    for n in range(3):
        child.add(1, 0.0, "stdout", None, f"line {n}")
    memory[at : at + 8] = b"\xff" * 8
    try:
        lines, _ = node.left(0)
    except (ValueError, IndexError):
        return
    assert len(lines) <= 3
