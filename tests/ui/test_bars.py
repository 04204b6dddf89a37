"""What every page asks its databases: few questions, none that grows with the jobs there are."""

from __future__ import annotations

import re

import pytest

from clusters import models
from clusters.binding import cluster_bound
from tests.ui import every_page

MOST_QUERIES = 15
# A search in what jobs said goes back for a time, in as many steps as fit into it.
SEARCHES = "q=error:"
# Counts of the job table itself; one of a look that ends after so many keys has a bracket before it.
COUNTS_JOBS = re.compile(r'count\([^)]*\)[^()]*\bfrom\s+"?job"?(\s|$)', re.IGNORECASE)
SKIPS = re.compile(r"\boffset\s+[1-9]", re.IGNORECASE)


def test_no_page_counts_or_skips_jobs_and_none_asks_much(superuser, alpha, queries, monkeypatch):
    every_page.fill()
    # Kept some seconds for all pages, and asked for by whoever comes first; here it is never old.
    monkeypatch.setattr(models, "POLICY_MAX_AGE", 3600.0)
    with cluster_bound(every_page.CLUSTER):
        models.current_policy()
    faults = []
    for page in every_page.shown(superuser, every_page.found()):
        with queries() as asked:
            superuser.get(page.path)
        if len(asked) > MOST_QUERIES and SEARCHES not in page.path:
            faults.append(f"{page.path}: {len(asked)} queries")
        faults += [
            f"{page.path}: {sql[:300]}"
            for sql in asked
            if COUNTS_JOBS.search(sql) or SKIPS.search(sql)
        ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("sql", "is_bad"),
    [
        ('SELECT COUNT(*) AS "__count" FROM "job" WHERE "job"."state" = \'failed\'', True),
        ("select count(id) from job", True),
        ('SELECT COUNT(*) FROM (SELECT 1 FROM "job" LIMIT 101) AS look', False),
        ('SELECT COUNT(*) FROM "job_tag"', False),
        ('SELECT "job"."id" FROM "job" LIMIT 50 OFFSET 100', True),
    ],
)
def test_what_is_looked_for_is_found(sql, is_bad):
    assert bool(COUNTS_JOBS.search(sql) or SKIPS.search(sql)) is is_bad
