"""Two hundred cron expressions in eight zones, in every week of thirty years that changes a clock."""

from __future__ import annotations

from random import Random

import pytest

from tests.faults.report import scale, seed
from tests.jobs.cron_comparison import Comparison
from tests.jobs.cron_oracle import EXPRESSIONS, ZONES, changing_weeks, walk

pytestmark = [pytest.mark.long, pytest.mark.django_db]


@pytest.mark.parametrize("name", ZONES)
def test_all_weeks_agree_with_the_oracle(name, figures):
    """Red without: the rules of gaps and folds."""
    randomly = Random(seed())
    weeks = changing_weeks(name)
    if scale() < 1:
        weeks = randomly.sample(weeks, max(round(len(weeks) * scale()), 1))
    comparison = Comparison()
    for monday in weeks:
        week = walk(name, monday)
        for expression in EXPRESSIONS:
            comparison.week(week, expression, randomly)
    figures |= {
        "weeks": len(weeks),
        "expressions": len(EXPRESSIONS),
        "compared": comparison.compared,
        "differences": len(comparison.differences),
    }
    assert comparison.differences == []
