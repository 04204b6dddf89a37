"""Many schedules: what is asked about them, and what stops them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import connections, models
from django.db.models import Exists, F, Func, OuterRef, Q, Value
from django.db.models.functions import Now

from clusters.deeds import verb_of_rows
from jobs.models.schedule_choices import Status

if TYPE_CHECKING:
    from jobs.models.schedule import Schedule  # noqa: F401 - in quotes below


class _HasTag(Func):
    """Whether a list in JSON holds a text, looked for as it is written there; SQLite has no operator."""

    template = "instr(%(expressions)s) > 0"
    output_field = models.BooleanField()


_UNSTOPPED = Q(deleted_at=None, is_paused=False, is_enabled=True)
# The same as ``Schedule.status``, for many.
_OF_STATUS = {
    Status.DELETED: Q(deleted_at__isnull=False),
    Status.PAUSED: Q(deleted_at=None, is_paused=True),
    Status.DISABLED: Q(deleted_at=None, is_paused=False, is_enabled=False),
    Status.BROKEN: _UNSTOPPED & Q(error__isnull=False),
    Status.COMPLETED: _UNSTOPPED & Q(error=None, next_due_at=None),
    Status.ENABLED: _UNSTOPPED & Q(error=None, next_due_at__isnull=False),
}


class Named(NamedTuple):
    """A name as this database compares names, which depends on its locale, and who has it."""

    key: str
    id: UUID | None


NAMES_AT_ONCE = 500
_NAMED = {
    "postgresql": "SELECT n.name, lower(n.name), s.id FROM unnest(%s::text[]) AS n(name)"
    " LEFT JOIN schedule s ON lower(s.name) = lower(n.name) AND s.deleted_at IS NULL",
    "sqlite": "SELECT n.value, lower(n.value), s.id FROM json_each(%s) AS n"
    " LEFT JOIN schedule s ON lower(s.name) = lower(n.value) AND s.deleted_at IS NULL",
}
# What a search finds is looked up by its ids as long as it is not more than this.
FEW_FOUND = 500


def _holding(column: str, texts: Iterable[str]) -> Q:
    return reduce(or_, (Q(**{f"{column}__contains": text}) for text in texts))


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def kept(self) -> ScheduleQuerySet:
        """Schedules that have not been deleted."""
        return self.filter(deleted_at=None)

    def due(self) -> ScheduleQuerySet:
        """Schedules whose next run has come, the latest ones first."""
        return self.filter(next_run_at__lte=Now()).order_by("next_run_at", "id")

    def late(self, is_late: bool = True) -> ScheduleQuerySet:
        """Schedules whose next run should have started some time ago, or the others."""
        from jobs.models.schedule import LATE_AFTER

        late = Q(next_run_at__lt=Now() - LATE_AFTER)
        return self.filter(late) if is_late else self.filter(Q(next_run_at=None) | ~late)

    def with_gaps(self, has_gaps: bool = True) -> ScheduleQuerySet:
        """Schedules with runs that were missed and that nobody has decided about, or the others."""
        from jobs.models.fire import Fire

        gaps = Fire.objects.using(self.db).all().missed()
        missed = Exists(gaps.filter(schedule_id=OuterRef("pk")))
        return self.filter(missed) if has_gaps else self.filter(~missed)

    def active(self) -> ScheduleQuerySet:
        """Schedules that nobody has stopped."""
        return self.filter(_UNSTOPPED)

    def of_status(self, *statuses: str) -> ScheduleQuerySet:
        """Schedules whose ``status`` is one of these."""
        return self.filter(reduce(or_, (_OF_STATUS[Status(status)] for status in statuses)))

    def tagged(self, tag: str) -> ScheduleQuerySet:
        """Schedules that carry this tag."""
        if connections[self.db].vendor == "postgresql":
            return self.filter(listing__tags__contains=[tag])
        return self.filter(_HasTag("listing__tags", Value(json.dumps(tag))))

    def listed_as(self, **words: str) -> ScheduleQuerySet:
        """Schedules of this kind, type, queue, timing, source or author."""
        return self.filter(**{f"listing__{word}": value for word, value in words.items()})

    def failing(self, wanted: bool = True) -> ScheduleQuerySet:
        """Schedules whose last run failed, or the others."""
        return (
            self.filter(consecutive_failures__gt=0)
            if wanted
            else self.filter(consecutive_failures=0)
        )

    def named(self, names: Iterable[str]) -> dict[str, Named]:
        """For each of these names that a schedule can have, whatever its case, the kept one that does."""
        connection = connections[self.db]
        # Others no schedule can have, and some databases refuse the very question.
        asked = [*{name for name in names if name.isprintable()}]
        found: dict[str, Named] = {}
        with connection.cursor() as cursor:
            for start in range(0, len(asked), NAMES_AT_ONCE):
                some = asked[start : start + NAMES_AT_ONCE]
                is_postgresql = connection.vendor == "postgresql"
                cursor.execute(
                    _NAMED[connection.vendor], [some if is_postgresql else json.dumps(some)]
                )
                for name, key, pk in cursor.fetchall():
                    is_id = pk is None or isinstance(pk, UUID)
                    found[name] = Named(key, pk if is_id else UUID(pk))
        return found

    def search(self, text: str) -> ScheduleQuerySet:
        """Schedules with this text in their name or description, in any case."""
        from jobs.models.schedule_listing import ScheduleListing

        # As it was typed, too: SQLite makes small only what is ASCII.
        texts = {text.lower(), text}
        found = ScheduleListing.objects.using(self.db).filter(_holding("text", texts))
        few = list(found.order_by().values_list("schedule_id", flat=True)[: FEW_FOUND + 1])
        if len(few) <= FEW_FOUND:
            # The planner would walk all schedules in the order of the list, looking each up.
            return self.filter(pk__in=few)
        return self.filter(_holding("listing__text", texts))

    @verb_of_rows("schedules.pause", "schedule")
    def pause(
        self, *, by: str, reason: str = "", resume_at: Any = None, by_all: bool = False
    ) -> int:
        """Stop runs that are due from now on; what runs goes on. Those paused already are left alone."""
        return (
            self.kept()
            .filter(is_paused=False)
            .update(
                is_paused=True,
                paused_by=by[:200],
                pause_reason=reason,
                paused_at=Now(),
                resume_at=resume_at,
                is_paused_by_all=by_all,
                next_due_at=None,
                next_run_at=None,
                version=F("version") + 1,
            )
        )

    def due_to_resume(self) -> ScheduleQuerySet:
        """Schedules whose pause was to last until now."""
        return self.filter(is_paused=True, resume_at__lte=Now(), deleted_at=None)

    def park(self, error: str) -> int:
        """Stop schedules that cannot be worked out, until somebody mends them."""
        return self.update(
            error=error[:1000],
            next_due_at=None,
            next_run_at=None,
            version=F("version") + 1,
            updated_at=Now(),
        )
