"""How screen and alerts write numbers and lengths of time; the command line's words."""

from __future__ import annotations

from datetime import UTC, datetime

# Where there is nothing to tell.
DASH = "\u2013"


def span(seconds: float | None) -> str:
    """A length of time in its two largest units: ``4 min 10 s``; a dash for none."""
    if seconds is None:
        return DASH
    if seconds < 0.001:
        return "< 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for length, unit, smaller, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def roughly(seconds: float | None) -> str:
    """A length of time that is only estimated, in one unit."""
    if seconds is None:
        return DASH
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{round(seconds / length)} {unit}"
    return f"{max(round(seconds), 1)} s"


def a_minute(per_second: float) -> str:
    """A rate: two digits of it where it is small."""
    rate = per_second * 60
    return number(round(rate)) if rate >= 10 or rate == int(rate) else f"{rate:.1f}"


def number(value: int | None) -> str:
    """A count with its thousands set apart."""
    return DASH if value is None else f"{value:,}".replace(",", "\u202f")


def short(value: int) -> str:
    """A count where there is little room: ``950``, ``1.2k``, ``35k``."""
    if value < 1000:
        return str(value)
    thousands = value / 1000
    return f"{thousands:.1f}k" if thousands < 9.95 else f"{thousands:,.0f}k".replace(",", "\u202f")


def counted(value: int, is_exact: bool = True) -> str:
    """A count, with a plus where counting stopped."""
    return number(value) + ("" if is_exact else "+")


def size(value: int | None) -> str:
    """So many bytes."""
    if value is None:
        return DASH
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock_change(change: tuple[datetime, datetime]) -> str:
    """What a change of the clocks does to that day."""
    before, after = change
    if after > before:
        return f"clocks go forward from {before:%H:%M} to {after:%H:%M}: what lies between does not come"
    return f"clocks go back from {before:%H:%M} to {after:%H:%M}: what lies between comes twice"
