"""The handler that is measured; worker nodes import it by YARDMASTER_HANDLERS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.marks import VARIABLE, Marker
from benchmarks.payload import TYPE
from jobs.registry import Context, job

# Made at the first call: children are forked after this module was imported.
_marker: Marker | None = None


@job(TYPE)
def noop(context: Context, payload: Any) -> None:
    """Do nothing but leave a mark."""
    global _marker
    if _marker is None:
        _marker = Marker(Path(os.environ[VARIABLE]))
    _marker.leave(payload.get("seq"))
