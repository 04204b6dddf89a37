"""Jobs whose payload holds a text, among the newest that meet other conditions.

No index knows what is inside of payloads, so they are read: a few at a time, and only so many jobs, bytes
and seconds; what was found until then is the answer. The text is looked for in what may be shown. Whoever
could look into secrets would soon have guessed them, letter by letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from clusters.models import current_policy
from jobs import listing
from jobs.engine.clock import countdown
from jobs.models import Job
from jobs.secrets import shown_payload

# Of so many jobs the payloads are looked at, for so long at most, and up to so many characters of them.
LOOKED_AT = 10_000
SECONDS = 2.0
MOST_CHARACTERS = 64_000_000
# In one statement; as many more as the payloads are small.
PAGE, LARGEST_PAGE = 20, 500
_PAGE_SECONDS = 0.1
# Of payloads as large as they may be.
MOST_BYTES = 32 << 20


def payloads_at_once(most: int) -> int:
    """So many payloads of the bound cluster are read in one statement, that memory holds them."""
    return max(1, min(most, MOST_BYTES // current_policy().max_payload_bytes))


def newest_ids(using: str, asked: Mapping[str, Any], text: str) -> list[UUID]:
    """The jobs whose payload, written as JSON, holds the text in any case; the newest first."""
    until, wanted = countdown() + SECONDS, text.casefold()
    found, left = [], MOST_CHARACTERS
    for pk, written in _payloads(using, listed_ids(using, asked, LOOKED_AT)):
        if wanted in written:
            found.append(pk)
        left -= len(written)
        if left <= 0 or countdown() >= until:
            break
    return found


def listed_ids(using: str, asked: Mapping[str, Any], number: int) -> Sequence[UUID]:
    """So many jobs that meet the conditions, the newest first."""
    rows = listing.newest(using, asked, "j.id", number)
    return [pk if isinstance(pk, UUID) else UUID(pk) for (pk,) in rows]


def _payloads(using: str, ids: Sequence[UUID]) -> Iterator[tuple[UUID, str]]:
    """Each job with its payload as it is shown, in small letters, and read page by page."""
    largest = payloads_at_once(LARGEST_PAGE)
    start, size = 0, min(PAGE, largest)
    while page := ids[start : start + size]:
        begun = countdown()
        rows = Job.objects.using(using).filter(pk__any_of=page, payload__isnull=False).order_by()
        payloads = {
            pk: (kind, value) for pk, kind, value in rows.values_list("pk", "kind", "payload")
        }
        for pk in page:
            if pk in payloads:
                shown = shown_payload(*payloads.pop(pk))
                yield pk, json.dumps(shown, ensure_ascii=False).casefold()
        start += size
        is_slow = countdown() - begun > _PAGE_SECONDS
        size = min(PAGE if is_slow else 2 * size, largest)
