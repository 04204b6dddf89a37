"""What a program tells in files: its output, and how far it is.

Kinds that run programs name two files in its environment, ``$JOB_OUTPUT`` and ``$JOB_PROGRESS``. The
first becomes ``output`` in the result of the job, the second its progress.
"""

from __future__ import annotations

import json
import math
from typing import Any

from jobs.executors import RESULT_BYTES, Output

# How often a running program's progress file is looked at.
PROGRESS_SECONDS = 2.0
PROGRESS_BYTES = 256
# What the rest of a result takes.
_AROUND_BYTES = 64


def most_output() -> int:
    """So many bytes of an output file are worth reading: one more than can be kept."""
    return RESULT_BYTES.get() + 1


def result_of(data: bytes, size: int, output: Output) -> dict[str, Any]:
    """The result of a program that ended well: ``data`` begins what it wrote, ``size`` bytes in all.

    What does not fit the largest result is cut off, and the log says so.
    """
    result: dict[str, Any] = {"exit_code": 0}
    text = data.decode("utf-8", "replace").replace("\0", "")
    if not text:
        return result
    kept = _fitting(text, RESULT_BYTES.get() - _AROUND_BYTES)
    if len(kept) < len(text) or size > len(data):
        shown = len(kept.encode())
        output.write("log", f"of {size} bytes of output the first {shown} are kept", "warning")
    result["output"] = kept
    return result


def _fitting(text: str, most: int) -> str:
    """As much of a text, from its start, as takes so many bytes of JSON."""
    if _json_size(text) <= most:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _json_size(text[:middle]) <= most:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _json_size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


def percent_of(data: bytes) -> float | None:
    """The number a progress file holds, from 0 to 100; None if it holds none."""
    try:
        number = float(data.decode("ascii").strip().removesuffix("%"))
    except ValueError:
        return None
    return min(max(number, 0.0), 100.0) if math.isfinite(number) else None
