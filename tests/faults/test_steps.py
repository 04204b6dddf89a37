"""Jobs made of steps, while the nodes that conduct them are killed."""

from __future__ import annotations

import time
from typing import Any

from clusters.models import ClusterSetting
from clusters.policy import ClusterPolicy
from jobs.engine.enqueue import NewJob
from jobs.engine.step_sweep import sweep_steps
from tests.faults.harness import ALIAS, batches
from tests.faults.report import scaled

WIDTH = 20


def _fan_in(number: int) -> NewJob:
    """Steps at once, and one after them."""
    fan = [_work(f"part {part}", seconds=0.001 * (number + part) / 10) for part in range(WIDTH)]
    steps = [{"name": "fan", "parallel": fan}, _work("after", fails=int(number % 7 == 0))]
    return NewJob(kind="steps", payload={"name": f"fan {number}", "steps": steps})


def _work(name: str, **payload: Any) -> dict[str, Any]:
    # However often its nodes are killed: what is looked at is their parents.
    return {
        **{"name": name, "kind": "python", "type": "fault:work", "payload": payload},
        "max_attempts": 50,
    }


def test_fan_in_ends_each_parent_once_whoever_is_killed(yard, figures):
    """Red without: the wake-up of a parent in the transaction that ends its last step."""
    count, kills = scaled(40, least=20), min(scaled(4, least=2), 20)
    ClusterSetting.objects.all().persist({"max_crashes": 50}, by="test")
    for _ in range(8 if count > 1000 else 2):
        yard.start_and_wait(concurrency=4 if count <= 1000 else 2)
    waves = list(batches([_fan_in(number % 50) for number in range(count)], max(20, count // 100)))
    repaired = 0
    for number in range(max(kills, len(waves))):
        if number < len(waves):
            yard.submit(waves[number])
        if number < kills:
            time.sleep(yard.random.uniform(0.3, 1.2))
            yard.kill_busy(lambda: yard.open_jobs() > 5 or yard.submit([_fan_in(1)]))
            yard.start_and_wait(concurrency=4)
        repaired += sweep_steps(ALIAS, ClusterPolicy())
    deadline = time.monotonic() + 60 + count
    while yard.open_jobs() and time.monotonic() < deadline:
        repaired += sweep_steps(ALIAS, ClusterPolicy())
        time.sleep(0.2)
    yard.wait_until_all_ended(1)
    submitted = len(yard.accepted)
    repaired += sweep_steps(ALIAS, ClusterPolicy())
    yard.stop()
    verdict = yard.judge()
    one = yard.database.value
    figures |= verdict.figures
    figures |= {
        "jobs": submitted,
        "kills": kills,
        "repaired": repaired,
        "steps": one("SELECT count(*) FROM step"),
        "stranded": one("SELECT count(*) FROM job WHERE finished_at IS NULL"),
        "ended_twice": one(
            "SELECT count(*) FROM (SELECT a.job_id FROM attempt a JOIN job j ON j.id = a.job_id"
            " WHERE j.kind IN ('steps', 'group') GROUP BY a.job_id HAVING count(*) <> 1) AS x"
        ),
        "too_early": one(
            "SELECT count(*) FROM step s JOIN job j ON j.id = s.job_id JOIN step p"
            " ON p.root_id = s.root_id JOIN job pj ON pj.id = p.job_id"
            " WHERE s.name = 'after' AND p.name <> 'after' AND pj.finished_at > j.created_at"
        ),
    }
    assert verdict.figures["states"].keys() == {"succeeded"}
    assert figures["steps"] == submitted * (WIDTH + 2)
    assert figures["repaired"] == figures["stranded"] == 0
    assert figures["ended_twice"] == figures["too_early"] == 0
    assert not any("steps and has" in log.read_text(errors="replace") for log in yard.logs())


def test_each_runs_no_more_items_at_once_than_it_may(yard, figures):
    """Red without: the count of open steps when items are made."""
    items = scaled(150, least=60)
    most = 50 if items >= 2000 else 5
    each = {
        "list": list(range(items)),
        "concurrency": most,
        "step": _work("item {{ item.index }}", seconds=0.005),
    }
    for _ in range(2):
        yard.start_and_wait(concurrency=8)
    yard.submit([NewJob(kind="steps", payload={"steps": [{"name": "all", "each": each}]})])
    seen = 0
    at_once = (
        "SELECT count(*) FROM step s JOIN job j ON j.id = s.job_id"
        " WHERE j.kind = 'python' AND j.finished_at IS NULL"
    )
    deadline = time.monotonic() + 60 + items / 5
    while yard.open_jobs() and time.monotonic() < deadline:
        seen = max(seen, yard.database.value(at_once))
    yard.stop()
    figures |= {"items": items, "most_at_once": seen}
    states = dict(yard.database.rows("SELECT state, count(*) FROM job GROUP BY state"))
    assert states == {"succeeded": items + 2}
    assert 0 < seen <= most
