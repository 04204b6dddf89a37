"""Small charts as SVG, made here: no script draws them and none is needed to see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 240, 44
_GAP = 1.0


def sparkline(values: Sequence[int], label: str, *, bad: Sequence[int] = ()) -> SafeString:
    """A bar per value, with its share of ``bad`` ones on top; the label is a sentence."""
    if not values:
        return SafeString("")
    highest = max(*values, 1)
    step = WIDTH / len(values)
    failures = list(bad) or [0] * len(values)
    bars = []
    for index, (value, failed) in enumerate(zip(values, failures, strict=True)):
        left = f"{index * step:.1f}"
        height = HEIGHT * value / highest
        red = HEIGHT * min(failed, value) / highest
        if value:
            # What happened at all can be seen, however little it is beside the highest.
            height = max(height, 1.5)
            red = max(red, 1.5) if failed else 0.0
            bars.append(("ui-bar", left, f"{HEIGHT - height:.1f}", f"{height - red:.1f}"))
        if red:
            bars.append(("ui-bar-bad", left, f"{HEIGHT - red:.1f}", f"{red:.1f}"))
    width = f"{max(step - _GAP, 0.5):.1f}"
    drawn = format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>',
        ((kind, x, y, width, height) for kind, x, y, height in bars),
    )
    return format_html(
        '<svg class="ui-spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"'
        ' aria-label="{}"><title>{}</title>'
        '<line class="ui-spark-base" x1="0" x2="{}" y1="{}" y2="{}"/>{}</svg>',
        WIDTH,
        HEIGHT,
        label,
        label,
        WIDTH,
        HEIGHT - 0.5,
        HEIGHT - 0.5,
        drawn,
    )


# Of a mark: what is drawn in a field of ten by sixteen, each state in a shape of its own.
MARKS = {
    "succeeded": '<rect class="ui-mark-good" x="1" y="1" width="7" height="14" rx="1"/>',
    "failed": '<path class="ui-mark-bad" d="M1.5 4.5l6 7m0-7l-6 7"/>',
    "running": '<path class="ui-mark-going" d="M1.5 3l7 5-7 5z"/>',
    "waiting": '<circle class="ui-mark-none" cx="4.5" cy="8" r="3"/>',
    "missed": '<rect class="ui-mark-gap" x="1.5" y="1.5" width="6" height="13"/>',
    "left out": '<path class="ui-mark-none" d="M1 8h7"/>',
    "ran": '<rect class="ui-mark-old" x="1" y="1" width="7" height="14" rx="1"/>',
}
_MARK_WIDTH, _MARK_HEIGHT = 10, 16


def marks(words: Sequence[str], most: int) -> SafeString:
    """A mark for each of these words, the newest at the right; the label counts them."""
    counted = Counter(words)
    told = ", ".join(f"{count} {word}" for word, count in counted.most_common())
    label = f"The last {len(words)}: {told}" if words else "None yet"
    offset = (most - len(words)) * _MARK_WIDTH
    drawn = format_html_join(
        "",
        '<g transform="translate({},0)">{}</g>',
        (
            # a constant of our own
            (offset + place * _MARK_WIDTH, SafeString(MARKS[word]))  # nosec B703
            for place, word in enumerate(words)
        ),
    )
    return format_html(
        '<svg class="ui-marks" viewBox="0 0 {} {}" width="{}" height="{}" role="img"'
        ' aria-label="{}"><title>{}</title>{}</svg>',
        most * _MARK_WIDTH,
        _MARK_HEIGHT,
        most * _MARK_WIDTH,
        _MARK_HEIGHT,
        label,
        label,
        drawn,
    )
