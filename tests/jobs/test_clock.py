from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from django.db import connections

from jobs.engine import clock

ENGINE = Path(clock.__file__).parent
ASKS_A_CLOCK = re.compile(r"datetime\.(now|utcnow|today)|timezone\.now|time\.(time|monotonic)\(")


def test_nobody_in_the_engine_but_the_clock_asks_what_time_it_is():
    askers = [
        path.name
        for path in ENGINE.glob("*.py")
        if path.name != "clock.py" and ASKS_A_CLOCK.search(path.read_text())
    ]
    assert askers == []


def test_the_databases_time_is_aware_and_plausible(alpha):
    now = clock.database_now(connections["cluster-alpha"])
    assert now.tzinfo is not None
    assert abs((now - datetime.now(UTC)).total_seconds()) < 60


def test_times_for_sqlite_sort_as_they_follow_each_other():
    times = [clock.sqlite_time(seconds) for seconds in (-3600, -0.000002, 0, 0.001, 86400)]
    assert times == sorted(times)
