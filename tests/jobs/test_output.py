from __future__ import annotations

import time

from jobs.engine.output import HEAD_BYTES, LINE_BYTES, TAIL_BYTES, BoundedOutput, clean


def collected(*writes: tuple[str, str]) -> list[str]:
    lines: list[str] = []
    output = BoundedOutput(lambda stream, level, text: lines.append(text))
    for stream, text in writes:
        output.write(stream, text)
    output.close()
    return lines


def test_pieces_become_lines():
    assert collected(("stdout", "one\ntw"), ("stdout", "o\nthree")) == ["one", "two", "three"]


def test_streams_do_not_mix_within_a_line():
    lines = collected(("stdout", "out"), ("stderr", "err\n"), ("stdout", "put\n"))
    assert lines == ["err", "output"]


def test_what_a_database_or_a_terminal_cannot_take_is_escaped():
    assert clean("a\x00b\x1b[31mc\ud800d\te") == "a\\x00b\\x1b[31mc\\xd800d\te"
    clean("\ud800").encode()


def test_a_line_without_end_is_cut_and_held_in_bounded_memory():
    lines = collected(("stdout", "x" * (5 * LINE_BYTES + 7)))
    assert [len(line) for line in lines[:5]] == [LINE_BYTES] * 4 + [LINE_BYTES]
    assert sum(map(len, lines)) == 5 * LINE_BYTES + 7 or "left out" in " ".join(lines)


def test_bytes_are_counted_and_empty_lines_too():
    wide = collected(*[("stdout", "漢" * 16_000 + "\n") for _ in range(30)])
    assert sum(len(line.encode()) for line in wide) <= HEAD_BYTES + TAIL_BYTES + LINE_BYTES * 3
    empty = collected(("stdout", "\n" * 200_000))
    assert len(empty) <= (HEAD_BYTES + TAIL_BYTES) // 64 + 10


def test_the_first_and_the_last_of_a_flood_are_kept_and_the_rest_is_counted():
    count = 20_000
    lines = collected(*[("stdout", f"{n:06d} {'x' * 92}\n") for n in range(count)])
    marker = next(line for line in lines if "left out here" in line)
    assert lines[0].startswith("000000") and lines[-1].startswith(f"{count - 1:06d}")
    missing = int(marker[1:].split()[0])
    assert missing == count - (len(lines) - 1)
    assert sum(len(line) + 1 for line in lines) <= HEAD_BYTES + TAIL_BYTES + 200


def test_one_line_of_many_megabytes_takes_no_longer_than_as_many_lines():
    """A line is cut by position: cutting its front off, piece by piece, copies it thousands of times."""
    begun = time.process_time()
    lines = collected(("stdout", "x" * (50 << 20)), ("stdout", "\n"))
    assert time.process_time() - begun < 5
    assert sum(map(len, lines)) < HEAD_BYTES + TAIL_BYTES + 2 * LINE_BYTES
