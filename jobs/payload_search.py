"""Jobs whose payload holds a text, among the newest that meet other conditions.

No index knows what is inside of payloads, so they are read: those of so many jobs and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast

from jobs import listing
from jobs.models import Job

# Of so many jobs the payloads are looked at, in statements of so many.
LOOKED_AT = 10_000
_AT_ONCE = 5000


def newest_ids(using: str, asked: Mapping[str, Any], text: str) -> list[UUID]:
    """The jobs whose payload, written as JSON, holds the text in any case; the newest first."""
    ids = listed_ids(using, asked, LOOKED_AT)
    found: set[UUID] = set()
    for start in range(0, len(ids), _AT_ONCE):
        page = Job.objects.using(using).filter(pk__any_of=ids[start : start + _AT_ONCE])
        written = page.annotate(written=Cast("payload", TextField()))
        found.update(written.filter(written__icontains=text).values_list("pk", flat=True))
    return [pk for pk in ids if pk in found]


def listed_ids(using: str, asked: Mapping[str, Any], number: int) -> Sequence[UUID]:
    """So many jobs that meet the conditions, the newest first."""
    rows = listing.newest(using, asked, "j.id", number)
    return [pk if isinstance(pk, UUID) else UUID(pk) for (pk,) in rows]
