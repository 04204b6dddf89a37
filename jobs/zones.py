"""Time zones as arithmetic: which offset holds when, and what a wall clock shows.

Instants and wall times are whole microseconds since 1970 here: an instant plus its offset is its wall
time, and days of a wall clock begin at multiples of `DAY`. Zones come from the pinned tzdata package and
not from the host, so all nodes of one version agree on when a clock is put forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import NamedTuple
from zoneinfo import ZoneInfo

import tzdata

from jobs.errors import InvalidSchedule, InvalidTimezone

SECOND = 1_000_000
DAY = 86_400 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_ORDINAL = EPOCH.toordinal()
# What lies outside is no date of a schedule; zones are not asked about it.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
# A repeated stretch of the wall clock is never longer than this.
LONGEST_FOLD = 2 * DAY

_MICROSECOND = timedelta(microseconds=1)
# Turns of a zone are looked up in blocks of time, and found by looking every few days: in no zone do
# two lie closer together (tests/jobs/test_zones.py).
_BLOCK = 256 * DAY
_STEP = 4 * DAY
_MAX_BLOCKS = 512


def to_micros(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def to_moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def to_date(wall: int) -> date:
    return date.fromordinal(wall // DAY + EPOCH_ORDINAL)


_FIRST = to_micros(EARLIEST)
_LAST = to_micros(LATEST)


class Turn(NamedTuple):
    """The instant at which a zone's offset changes."""

    at: int
    before: int
    after: int


class Segment(NamedTuple):
    """A stretch of time under one offset, and the turn it comes after, if that is not long ago."""

    start: int
    end: int
    offset: int
    turn: Turn | None


class Zone:
    """A time zone by name; get it from `zone`."""

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self.info = info
        self._blocks: dict[int, tuple[int, tuple[Turn, ...]]] = {}

    def __repr__(self) -> str:
        return f"Zone({self.name!r})"

    def offset(self, micros: int) -> int:
        offset, turns = self._block(micros // _BLOCK)
        for turn in turns:
            if turn.at > micros:
                break
            offset = turn.after
        return offset

    def segments(self, low: int, high: int) -> Iterator[Segment]:
        """All of [low, high) in stretches without a turn; long ones come in several pieces."""
        number = low // _BLOCK
        earlier = self._block(number - 1)[1] if low - number * _BLOCK < LONGEST_FOLD else ()
        known = [turn for turn in (*earlier, *self._block(number)[1]) if turn.at <= low]
        last = known[-1] if known else None
        start, offset = low, self.offset(low)
        while start < high:
            for turn in self._block(number)[1]:
                if low < turn.at < high:
                    if turn.at > start:
                        yield Segment(start, turn.at, offset, last)
                    start, offset, last = turn.at, turn.after, turn
            number += 1
            end = min(number * _BLOCK, high)
            if start < end:
                yield Segment(start, end, offset, last)
            start = end

    def local(self, micros: int) -> datetime:
        return to_moment(micros).astimezone(self.info)

    def _block(self, number: int) -> tuple[int, tuple[Turn, ...]]:
        """The offset with which a block begins, and its turns."""
        number = min(max(number, _FIRST // _BLOCK), _LAST // _BLOCK)
        block = self._blocks.get(number)
        if block is None:
            block = self._look_through(number)
            if len(self._blocks) >= _MAX_BLOCKS:
                self._blocks.clear()
            self._blocks[number] = block
        return block

    def _look_through(self, number: int) -> tuple[int, tuple[Turn, ...]]:
        # One second earlier than the block, for a turn at its very beginning.
        at = (number * _BLOCK) // SECOND - 1
        end = at + _BLOCK // SECOND
        begins = offset = self._ask(at)
        turns = []
        while at < end:
            later = min(at + _STEP // SECOND, end)
            if (new := self._ask(later)) != offset:
                low, high = at, later
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if self._ask(middle) == offset else (low, middle)
                turns.append(Turn(high * SECOND, offset, new))
                offset = new
            at = later
        return begins, tuple(turns)

    def _ask(self, seconds: int) -> int:
        offset = datetime.fromtimestamp(seconds, self.info).utcoffset()
        assert offset is not None  # every zone of tzdata has one
        return offset // _MICROSECOND


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    """Every zone there is."""
    listed = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(listed.split())


def zone(name: str, *, field: str = "timezone") -> Zone:
    """The zone of this IANA name."""
    if not isinstance(name, str) or name not in names():
        shown = repr(name[:60]) if isinstance(name, str) else "this"
        raise InvalidTimezone(
            f"{shown} is no time zone; write an IANA name such as Europe/Berlin", field=field
        )
    return _load(name)


@lru_cache(maxsize=700)
def _load(name: str) -> Zone:
    *folders, file = name.split("/")
    package = ".".join(("tzdata", "zoneinfo", *folders))
    with resources.files(package).joinpath(file).open("rb") as data:
        return Zone(name, ZoneInfo.from_file(data, key=name))


def tzdata_version() -> str:
    """The version of the zone rules in force."""
    return str(tzdata.IANA_VERSION)


def from_wall_time(wall: str | datetime, name: str, *, field: str = "run_at") -> datetime:
    """The instant at which a clock in this zone shows a time; the earlier one if it does so twice."""
    where = zone(name)
    shown = _read_wall_time(wall, field)
    micros = to_micros(shown.replace(tzinfo=UTC))
    turns = []
    for segment in where.segments(micros - LONGEST_FOLD, micros + LONGEST_FOLD):
        if segment.start <= micros - segment.offset < segment.end:
            return to_moment(micros - segment.offset)
        turns.append(segment.turn)
    for turn in turns:
        if turn is not None and turn.at + turn.before <= micros < turn.at + turn.after:
            raise _skipped(where, shown, [micros - turn.after, micros - turn.before], field)
    raise AssertionError("a wall time is shown or skipped")


def _read_wall_time(wall: str | datetime, field: str) -> datetime:
    if isinstance(wall, str):
        try:
            wall = datetime.fromisoformat(wall)
        except ValueError:
            raise InvalidSchedule(
                "must be a wall time such as 2026-03-29T02:30", field=field
            ) from None
    if wall.tzinfo is not None:
        raise InvalidSchedule("a wall time has no offset from UTC", field=field)
    if not EARLIEST.year < wall.year < LATEST.year:
        raise InvalidSchedule(
            f"must lie between {EARLIEST.year + 1} and {LATEST.year - 1}", field=field
        )
    return wall


def _skipped(where: Zone, shown: datetime, instants: list[int], field: str) -> InvalidSchedule:
    candidates = [where.local(micros).isoformat() for micros in instants]
    return InvalidSchedule(
        f"no clock in {where.name} shows {shown.isoformat()}; "
        f"choose {candidates[0]} or {candidates[1]}",
        field=field,
    )
