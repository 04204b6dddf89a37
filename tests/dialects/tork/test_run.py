"""Definitions in the language of Tork's documentation, run by a real node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.dialects.tork.conftest import Caller, checked
from tests.processes import started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

WHOLE = """\
name: whole
inputs: {who: world, items: '["x","y","z"]'}
output: >-
  {{ tasks.greeting }}|{{ tasks.part0 }}{{ tasks.part1 }}{{ tasks.part2 }}|{{ tasks.inner }}
tasks:
  - name: greet
    var: greeting
    env: {WHO: "{{ inputs.who }}"}
    files: {text.txt: hello}
    pre: [{name: before, run: echo -n before > pre.txt}]
    post: [{name: after, run: test -f pre.txt}]
    run: |
      false
      echo "$UNSET_VARIABLE"
      printf '%s %s' "$(cat text.txt)" "$WHO" > $TORK_OUTPUT
  - name: all
    each:
      list: "{{ fromJSON(inputs.items) }}"
      concurrency: 2
      task:
        name: "do {{ item.value }}"
        var: "part{{ item.index }}"
        env: {ITEM: "{{ item.value }}"}
        run: printf '%s' "$ITEM" > $TORK_OUTPUT
  - name: both
    parallel:
      tasks:
        - {name: left, var: left, run: printf left > $TORK_OUTPUT}
        - {name: right, run: echo right}
  - {name: never, if: "{{ inputs.who == 'nobody' }}", run: exit 1}
  - name: child
    var: inner
    subjob:
      name: inner
      inputs: {said: "{{ tasks.greeting }}"}
      output: "<{{ tasks.r }}>"
      tasks:
        - {name: r, var: r, env: {S: "{{ inputs.said }}"}, run: printf '%s' "$S" > $TORK_OUTPUT}
  - {name: tried, retry: {limit: 2}, run: test "$JOB_ATTEMPT" = 2}
  - {name: program, cmd: [/bin/echo, "{{ inputs.who }}"]}
"""


def test_what_is_written_for_the_original_does_the_same(
    make_key: Callable[..., str], eventually: Callable[..., None]
) -> None:
    api = Caller(make_key("operator", grants=("shell",)))
    environment = worker_environment(YARDMASTER_WORKER_KINDS="python,shell")
    with started("worker", "--cluster", "alpha", env=environment) as process:
        told = checked(api.yaml(WHOLE))
        slow = checked(api.yaml("name: late\ntasks: [{name: s, timeout: 300ms, run: sleep 60}]"))

        def is_over() -> bool:
            assert process.poll() is None, process.stdout and process.stdout.read()
            states = {api.job(one["id"])["state"] for one in (told, slow)}
            return states <= {"COMPLETED", "FAILED"}

        eventually(is_over, seconds=90)
    done: dict[str, Any] = api.job(told["id"])
    assert done["state"] == "COMPLETED", done
    assert done["result"] == "hello world|xyz|<hello world>"
    assert done["context"]["tasks"]["left"] == "left"
    states = [(row["name"], row["state"]) for row in done["execution"]]
    assert ("never", "SKIPPED") in states
    assert [state for name, state in states if name == "tried"] == ["FAILED", "COMPLETED"]
    (program,) = (row for row in done["execution"] if row["name"] == "program")
    log = api.read(f"tasks/{program['id']}/log")["items"]
    assert "".join(part["contents"] for part in reversed(log)).strip() == "world"
    assert api.job(slow["id"])["state"] == "FAILED"
