"""How far the log of a step is behind what it prints, on a real node."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from clusters.binding import cluster_bound
from jobs.engine.enqueue import NewJob, enqueue
from jobs.models import Job, LogLine
from jobs.states import FINAL, State
from jobs.step_logs import Follower
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

# On a machine that does other things beside the tests.
MOST_SECONDS = 2.5


def test_lines_of_a_step_can_be_read_while_it_runs(eventually: Callable[..., None]) -> None:
    env = worker_environment(YARDMASTER_HANDLERS="tests.worker_handlers")
    step = {"kind": "python", "type": "test:clock", "payload": {"seconds": 4}}
    steps = [{"name": "speaks", **step}, {"name": "beside", "needs": [], **step}]
    with cluster_bound("alpha") as cluster:
        job = enqueue(NewJob(kind="steps", payload={"steps": steps}), by="test").job
        with started("worker", "--cluster", "alpha", "--concurrency", "2", env=env):
            eventually(lambda: LogLine.objects.exists(), seconds=60)
            behind, names = [], set()
            for lines in Follower(cluster.alias, job.pk, with_steps=True):
                now = time.time()
                if Job.objects.get(pk=job.pk).state not in FINAL:
                    behind += [now - float(line.message) for line in lines]
                names |= {line.step_name for line in lines}
                time.sleep(0.05)
        job.refresh_from_db()
    assert (job.state, names) == (State.SUCCEEDED, {"speaks", "beside"})
    print(f"{len(behind)} lines, at most {max(behind):.2f} s behind")
    # The first ones were there before anybody looked.
    assert len(behind) > 20
    assert sorted(behind)[len(behind) // 2] < MOST_SECONDS
