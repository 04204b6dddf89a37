"""Running totals: what has happened since the cluster was made, in words. They never go back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from django.db import connections, models

# In place of a queue's name: what is counted for the cluster as a whole.
NO_QUEUE = ""


class TotalName(models.TextChoices):
    """What is counted; ``Total.word`` tells it further."""

    FAILED = "failed"  # jobs that failed, by reason
    ENDED = "ended"  # attempts that did not succeed, by outcome; the others are counted as events
    FIRES = "fires"  # instants of schedules: `fired`, or why they made no job


class TotalQuerySet(models.QuerySet["Total"]):
    def add(self, name: TotalName, words: Mapping[str, int]) -> None:
        """Add to the cluster's totals. The rows stay locked until the end of the transaction, so let it
        be the last thing in it."""
        rows = sorted((word, count) for word, count in words.items() if count > 0)
        if not rows:
            return
        places = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
        values = [value for word, count in rows for value in (name.value, NO_QUEUE, word, count)]
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                f"INSERT INTO total (name, queue, word, count) VALUES {places} {ADD}", values
            )


class Total(models.Model):
    """One running total. Beside the rows of ``rollup`` of all time, which have the events."""

    pk = models.CompositePrimaryKey("name", "queue", "word")
    name = models.CharField(max_length=6, choices=TotalName)
    queue = models.CharField(max_length=100, default=NO_QUEUE)
    word = models.CharField(max_length=20)
    count = models.PositiveBigIntegerField()

    objects: ClassVar[models.Manager[Total]] = TotalQuerySet.as_manager()

    class Meta:
        db_table = "total"

    def __str__(self) -> str:
        return f"{self.name} {self.queue} {self.word}: {self.count}"


# What follows an INSERT of rows, each of them once and in the order of their keys.
ADD = "ON CONFLICT (name, queue, word) DO UPDATE SET count = total.count + excluded.count"
