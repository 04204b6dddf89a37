from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections, transaction

from jobs import tallies
from jobs.engine.clock import database_now
from jobs.models import Tally

USING = "cluster-alpha"


def test_equal_rows_are_one_tally_of_this_minute(alpha):
    before = database_now(connections[USING]).replace(second=0, microsecond=0)
    tallies.count(
        USING,
        [
            ("mail", "send", "enqueued", 2),
            ("mail", "send", "cancelled", 1),
            ("mail", "send", "enqueued", 3),
        ],
    )
    rows = list(Tally.objects.order_by("event"))
    assert [(t.queue, t.type, t.event, t.bucket, t.count) for t in rows] == [
        ("mail", "send", "cancelled", None, 1),
        ("mail", "send", "enqueued", None, 5),
    ]
    for row in rows:
        assert before <= row.minute <= before + timedelta(minutes=1)
        assert (row.minute.second, row.minute.microsecond) == (0, 0)


def test_nothing_to_count_writes_nothing(alpha, django_assert_num_queries):
    with django_assert_num_queries(0, using=USING):
        tallies.count(USING, [("mail", "send", "enqueued", 0)])
        tallies.count(USING, [])


def test_it_is_one_statement_however_many_rows(alpha, django_assert_num_queries):
    with django_assert_num_queries(1, using=USING):
        tallies.count(USING, [(f"queue-{n}", "send", "enqueued", 1) for n in range(300)])
    assert Tally.objects.count() == 300


def test_more_rows_than_a_statement_takes_are_all_counted(alpha):
    tallies.count(USING, [(f"queue-{n}", "send", "enqueued", 1) for n in range(9000)])
    assert Tally.objects.count() == 9000


@pytest.mark.django_db(transaction=True)
def test_a_tally_goes_with_its_transaction(alpha):
    with pytest.raises(RuntimeError), transaction.atomic(using=USING):
        tallies.count(USING, [("mail", "send", "enqueued", 1)])
        raise RuntimeError
    assert not Tally.objects.exists()
