"""Small charts as SVG, made here: no script draws them and none is needed to see them."""

from __future__ import annotations

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
