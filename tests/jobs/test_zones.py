from __future__ import annotations

import itertools
import struct
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest
import tzdata
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidSchedule, InvalidTimezone
from jobs.zones import (
    _BLOCK,
    _STEP,
    LONGEST_FOLD,
    SECOND,
    from_wall_time,
    names,
    to_micros,
    to_moment,
    tzdata_version,
    zone,
)
from tests.jobs.cron_oracle import ZONES

START, END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1971, 2037))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def compiled(name: str) -> bytes:
    path = resources.files("tzdata") / "zoneinfo"
    for part in name.split("/"):
        path = path / part
    return path.read_bytes()


def turns_in(data: bytes) -> list[tuple[int, int, int]]:
    """(instant, offset before, offset after) as the file of the zone has them (RFC 9636)."""
    skipped = 44 + sum(
        count * size
        for count, size in zip(struct.unpack(">6l", data[20:44]), (1, 1, 8, 5, 6, 1), strict=True)
    )
    *_, times, types, _ = struct.unpack(">6l", data[skipped + 20 : skipped + 44])
    at_byte = skipped + 44
    instants = struct.unpack(f">{times}q", data[at_byte : at_byte + 8 * times])
    kinds = data[at_byte + 8 * times : at_byte + 9 * times]
    at_byte += 9 * times
    offsets = [
        struct.unpack(">l", data[at_byte + 6 * n : at_byte + 6 * n + 4])[0] for n in range(types)
    ]
    after = [offsets[kind] for kind in kinds]
    changes = zip(instants, [offsets[0], *after], after, strict=False)
    return [one for one in changes if one[1] != one[2] and START <= one[0] < END]


ALL = sorted(names())
SOME = [*ZONES, "America/Boa_Vista", "America/St_Johns", "Asia/Gaza", "Europe/Dublin", "Asia/Tokyo"]


def test_no_zone_turns_faster_than_we_look():
    closest = min(
        later[0] - earlier[0]
        for name in ALL
        for earlier, later in itertools.pairwise(turns_in(compiled(name)))
    )
    assert len(ALL) > 500
    assert closest * SECOND > _STEP


@pytest.mark.parametrize("name", SOME)
def test_every_turn_of_a_zone_is_found(name):
    found = [
        (segment.turn.at, segment.turn.before, segment.turn.after)
        for segment in zone(name).segments(START * SECOND, END * SECOND)
        if segment.turn and segment.start == segment.turn.at
    ]
    listed = [tuple(value * SECOND for value in one) for one in turns_in(compiled(name))]
    # Beyond its list a zone goes on by a rule, which the last line of the file tells.
    last = listed[-1][0] if listed else 0
    assert [one for one in found if one[0] <= last] == listed


def test_a_turn_is_remembered_for_as_long_as_a_fold_may_last():
    over_the_edge = 0
    for name in SOME:
        for at_second, *_ in turns_in(compiled(name)):
            low = at_second * SECOND + LONGEST_FOLD - 1
            assert next(zone(name).segments(low, low + 1)).turn.at == at_second * SECOND
            over_the_edge += low // _BLOCK != at_second * SECOND // _BLOCK
    assert over_the_edge


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["Europe/Berlin", "America/Santiago", "Africa/Casablanca", "UTC"]),
    st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1)),
    st.timedeltas(timedelta(0), timedelta(days=900)),
)
def test_segments_leave_nothing_out_and_tell_the_offset(name, naive, length):
    where = zone(name)
    low = to_micros(naive.replace(tzinfo=UTC))
    high = low + length // timedelta(microseconds=1)
    reached = low
    for segment in where.segments(low, high):
        assert segment.start == reached < segment.end
        for micros in (segment.start, segment.end - 1):
            shown = where.local(micros).utcoffset()
            assert segment.offset == where.offset(micros) == shown // timedelta(microseconds=1)
        reached = segment.end
    assert reached == high


def test_the_rules_are_those_of_the_pinned_package():
    assert tzdata_version() == tzdata.IANA_VERSION
    assert zone("Europe/Berlin").info.key == "Europe/Berlin"
    assert zone("America/Argentina/Ushuaia").name == "America/Argentina/Ushuaia"


@pytest.mark.parametrize(
    "name",
    [
        "Mars/Olympus",
        "europe/berlin",
        "",
        "../../etc/passwd",
        "Europe",
        "__init__",
        "a" * 9999,
        7,
        None,
    ],
)
def test_an_unknown_zone_is_refused(name):
    with pytest.raises(InvalidTimezone) as refused:
        zone(name)
    assert (refused.value.code, refused.value.field) == ("invalid_timezone", "timezone")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("wall", "name", "instant"),
    [
        ("2026-06-01T07:00", "Europe/Berlin", "2026-06-01T05:00"),
        ("2026-03-29T01:59:59", "Europe/Berlin", "2026-03-29T00:59:59"),
        ("2026-03-29T03:00", "Europe/Berlin", "2026-03-29T01:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30"),
        ("2026-10-25T03:00", "Europe/Berlin", "2026-10-25T02:00"),
        ("2026-04-05T01:45", "Australia/Lord_Howe", "2026-04-04T14:45"),
        ("2026-04-04T23:30", "America/Santiago", "2026-04-05T02:30"),
        ("2011-12-31T00:00", "Pacific/Apia", "2011-12-30T10:00"),
        (datetime(2026, 6, 1, 7), "UTC", "2026-06-01T07:00"),
    ],
)
def test_a_wall_time_is_an_instant_and_in_a_fold_the_earlier(wall, name, instant):
    assert from_wall_time(wall, name) == at(instant)


@pytest.mark.parametrize(
    ("wall", "name", "earlier", "later"),
    [
        (
            "2026-03-29T02:30",
            "Europe/Berlin",
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:30:00+02:00",
        ),
        (
            "2026-10-04T02:15",
            "Australia/Lord_Howe",
            "2026-10-04T01:45:00+10:30",
            "2026-10-04T02:45:00+11:00",
        ),
        (
            "2011-12-30T12:00",
            "Pacific/Apia",
            "2011-12-29T12:00:00-10:00",
            "2011-12-31T12:00:00+14:00",
        ),
    ],
)
def test_a_wall_time_in_a_gap_is_refused_with_both_candidates(wall, name, earlier, later):
    with pytest.raises(InvalidSchedule, match="shows") as refused:
        from_wall_time(wall, name)
    assert (refused.value.code, refused.value.field) == ("invalid", "run_at")
    assert f"choose {earlier} or {later}" in str(refused.value)


@pytest.mark.parametrize(
    "wall", ["tomorrow", "", "2026-13-01T00:00", "2026-06-01T07:00Z", "0001-01-01", "9999-12-31"]
)
def test_what_is_no_wall_time_is_refused(wall):
    with pytest.raises(InvalidSchedule) as refused:
        from_wall_time(wall, "Europe/Berlin", field="runAt")
    assert refused.value.field == "runAt"


def test_moments_and_numbers_are_the_same():
    moment = datetime(2026, 3, 29, 1, 2, 3, 456789, tzinfo=UTC)
    assert to_moment(to_micros(moment)) == moment
    assert to_micros(moment.astimezone(zone("Europe/Berlin").info)) == to_micros(moment)
