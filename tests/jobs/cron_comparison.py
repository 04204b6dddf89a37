"""Our arithmetic against the oracle, over whole weeks and from cursors anywhere near a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from jobs.cron import parse
from jobs.zones import zone
from tests.jobs import cron_oracle
from tests.jobs.cron_oracle import Matcher, Week


@dataclass
class Comparison:
    """How many instants were compared, and which of them differ."""

    compared: int = 0
    differences: list[tuple[object, ...]] = field(default_factory=list)

    def week(self, week: Week, expression: str, randomly: Random) -> None:
        matcher = Matcher(expression)
        for gap in ("fire",) if matcher.is_wildcard else ("fire", "skip"):
            expected = matcher.fires(week, gap)
            self._chain(week, expression, gap, expected)
            for cursor in self._cursors(week, randomly):
                self._one(week, expression, gap, expected, cursor)

    def _chain(self, week: Week, expression: str, gap: str, expected: list[datetime]) -> None:
        cron, where = parse(expression), zone(week.zone)
        moment = week.start - timedelta(microseconds=1)
        found = []
        while (moment := cron.next_after(moment, where, gap)) is not None and moment < week.end:
            found.append(moment)
        self.compared += max(len(expected), len(found), 1)
        if found != expected:
            wrong = sorted(set(found) ^ set(expected))
            self.differences.append((expression, week.zone, gap, wrong[:5] or "order"))

    def _one(
        self, week: Week, expression: str, gap: str, expected: list[datetime], cursor: datetime
    ) -> None:
        found = parse(expression).next_after(cursor, zone(week.zone), gap)
        wanted = cron_oracle.next_after(expected, cursor)
        self.compared += 1
        is_right = found == wanted if wanted else found is None or found >= week.end
        if not is_right:
            self.differences.append((expression, week.zone, gap, cursor, found, wanted))

    def _cursors(self, week: Week, randomly: Random) -> list[datetime]:
        """Two anywhere, and four within two hours of a change, with seconds and less."""
        length = (week.end - week.start).total_seconds() - 1
        anywhere = [week.start + timedelta(seconds=randomly.uniform(0, length)) for _ in range(2)]
        changes = self._changes(week)
        near = [
            randomly.choice(changes) + timedelta(seconds=randomly.uniform(-7200, 7200))
            for _ in range(4 if changes else 0)
        ]
        return anywhere + [one for one in near if week.start <= one < week.end]

    def _changes(self, week: Week) -> list[datetime]:
        """The first minute after each gap, and both ends of what was shown a second time."""
        changes = {after for after, _, _ in week.skipped}
        for minutes in week.minutes.values():
            second = [now for now, _, is_first in minutes if not is_first]
            changes |= {second[0], second[-1]} if second else set()
        return sorted(changes)
