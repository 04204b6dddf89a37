"""The work of the demo for live nodes: `manage.py up --demo` names this module in YARDMASTER_HANDLERS.

What failed because a server was away goes well now; what is wrong with the job itself fails again.
"""

from __future__ import annotations

import random
import time
from typing import Any

from jobs.demo.play import Work
from jobs.demo.plays import PLAYS
from jobs.registry import PermanentError, job

LONGEST_SECONDS = 20.0
# Types whose jobs of the demo go on failing, each time for the same reason.
STILL_BROKEN = {"digest:build": KeyError("locale")}
GONE_FOR_GOOD = {"push:send": "device token is no longer valid"}
# Of those, so many do.
SHARE = 0.02


def _handler(work: Work) -> Any:
    def run(context: Any, payload: Any) -> Any:
        chance = random.Random(context.id)  # noqa: S311  nothing here is a secret
        for line in work.lines:
            context.log(line)
        took = min(work.seconds * chance.lognormvariate(0.0, work.spread), LONGEST_SECONDS)
        time.sleep(took)
        if chance.random() < SHARE:
            if work.type in STILL_BROKEN:
                raise STILL_BROKEN[work.type]
            if work.type in GONE_FOR_GOOD:
                raise PermanentError(GONE_FOR_GOOD[work.type])
        return work.result(chance)

    run.__doc__ = f"Some {work.seconds:g} s of {work.type}."
    return run


for _play in PLAYS:
    for _work in _play.works:
        if _work.kind == "python":
            job(_work.type)(_handler(_work))
