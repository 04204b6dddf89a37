"""Which databases answer. Asked in threads of their own, so that a dead one delays nobody."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection
from datetime import UTC, datetime

from django.db import connections

from clusters.routers import CONTROL

logger = logging.getLogger(__name__)


class Watch:
    """Ask databases whether they live: each at most once at a time, and not again while it is fresh."""

    def __init__(self, max_age_seconds: float = 2.0) -> None:
        self.max_age_seconds = max_age_seconds
        self._known: dict[str, tuple[float, bool]] = {}
        self._asked: set[str] = set()
        self._awaiting: dict[str, bool | None] = {}
        self._down_since: dict[str, datetime] = {}
        self._changed = threading.Condition()

    def ask(self, aliases: Collection[str], wait_seconds: float) -> dict[str, bool | None]:
        """Whether each database is up, as last known; None where no answer came in time yet."""
        with self._changed:
            for alias in aliases:
                self._start_probe(alias)
            self._changed.wait_for(lambda: self._asked.isdisjoint(aliases), wait_seconds)
            for alias in self._asked & set(aliases):
                self._down_since.setdefault(alias, datetime.now(UTC))
            return {
                alias: self._known[alias][1] if alias in self._known else None for alias in aliases
            }

    def overdue(self, aliases: Collection[str]) -> set[str]:
        """Databases that were asked and have not answered yet."""
        with self._changed:
            return self._asked & set(aliases)

    def awaits_confirmation(self, alias: str) -> bool | None:
        """Whether a cluster was restored and waits for a person, as last known; None: not known."""
        return self._awaiting.get(alias)

    def down_since(self, alias: str) -> datetime | None:
        """Since when nobody here has had an answer, by this host's clock; None: it answers."""
        return self._down_since.get(alias)

    def report_down(self, alias: str) -> None:
        """Somebody could not reach this database; find out when it is back."""
        with self._changed:
            self._down_since.setdefault(alias, datetime.now(UTC))
            self._known[alias] = (float("-inf"), False)
            self._start_probe(alias)

    def is_down(self, alias: str) -> bool:
        """Whether to refuse work for this database at once, and not wait for it to time out again."""
        known = self._known.get(alias)
        if known is None or known[1]:
            return False
        with self._changed:
            self._start_probe(alias)
        return True

    def forget(self) -> None:
        with self._changed:
            self._known.clear()
            self._down_since.clear()

    def _start_probe(self, alias: str) -> None:
        if alias not in self._asked and not self._is_fresh(alias):
            self._asked.add(alias)
            threading.Thread(target=self._probe, args=(alias,), daemon=True).start()

    def _is_fresh(self, alias: str) -> bool:
        return (
            alias in self._known and time.monotonic() - self._known[alias][0] < self.max_age_seconds
        )

    def _probe(self, alias: str) -> None:
        # Connections are kept per thread: this one is new here and must be closed here.
        try:
            is_up = _answers(alias)
            is_waiting = _is_restored(alias) if is_up and alias != CONTROL else None
        finally:
            with contextlib.suppress(Exception):
                connections[alias].close()
        with self._changed:
            self._known[alias] = (time.monotonic(), is_up)
            self._awaiting[alias] = is_waiting
            if is_up:
                self._down_since.pop(alias, None)
            else:
                self._down_since.setdefault(alias, datetime.now(UTC))
            self._asked.discard(alias)
            self._changed.notify_all()


def _answers(alias: str) -> bool:
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except Exception as error:  # whatever it is, the database does not serve
        logger.warning("database %s does not answer: %s", alias, type(error).__name__)
        return False
    return True


def _is_restored(alias: str) -> bool | None:
    from clusters.models import ClusterSetting

    try:
        return ClusterSetting.objects.using(alias).all().restored().exists()
    except Exception:  # such as a database that was not migrated yet
        logger.debug("%s does not tell whether it was restored", alias, exc_info=True)
        return None


watch = Watch()
