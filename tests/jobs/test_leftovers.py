"""What handlers leave behind, seen from within their process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

from jobs.engine.output import BoundedOutput
from jobs.executors.shell_processes import IS_SUPPORTED, scan
from tests.processes import ROOT


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process group of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        process_group=0,
        check=False,
    )


@pytest.mark.skipif(not IS_SUPPORTED, reason="needs /proc")
@pytest.mark.parametrize(
    ("forks", "why"),
    [
        # Many, all of one parent.
        ("for _ in range(400):\n    if os.fork() == 0:\n        time.sleep(60)", "40 processes"),
        # Few, each of the one before.
        ("for _ in range(20):\n    if os.fork(): time.sleep(60)", "8 generations"),
    ],
)
def test_who_forks_without_end_is_ended_with_all_copies(forks, why, eventually):
    prologue = """
import os, time
from jobs.engine import leftovers
leftovers.MOST_PROCESSES = 40
guard = leftovers.ForkGuard()
os.register_at_fork(before=guard.before_fork, after_in_child=guard.after_fork)
print(os.getpid(), flush=True)
"""
    done = run(prologue + forks)
    assert done.returncode == -9
    assert f"killed: more than {why}" in done.stderr
    group = int(done.stdout)
    eventually(lambda: not any(one.group == group and one.is_alive for one in scan()))


@pytest.mark.skipif(not IS_SUPPORTED, reason="needs /proc")
def test_daemons_are_found_and_ended_by_who_adopts_orphans():
    done = run("""
        import os, subprocess, time
        from clusters.processes import adopt_orphans
        from jobs.engine.leftovers import end_children, has_children
        adopt_orphans()
        assert not has_children()
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    subprocess.Popen(["sleep", "60"], env={}, start_new_session=True)
                    time.sleep(60)
                os._exit(0)
        subprocess.Popen(["true"]).wait()
        time.sleep(1)
        assert has_children()
        print(end_children())
        assert not has_children()
    """)
    assert done.stdout == "(6, True)\n", done.stderr


def test_more_than_half_of_the_descriptors_is_too_many():
    done = run("""
        import os, resource
        from jobs.engine.leftovers import descriptors_are_scarce
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        print(descriptors_are_scarce(0))
        kept = [os.dup(0) for _ in range(34)]
        print(descriptors_are_scarce(0))
        try:
            while True:
                kept.append(os.dup(0))
        except OSError:
            print(descriptors_are_scarce(0))
    """)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr


def test_a_line_of_any_length_takes_time_in_proportion():
    lines: list[str] = []

    def seconds(size: int) -> float:
        output = BoundedOutput(lambda stream, level, text: lines.append(text))
        text = "x" * size
        begun = time.process_time()
        output.write("stdout", text)
        output.close()
        return time.process_time() - begun

    small = min(seconds(5 << 20) for _ in range(3))
    assert min(seconds(50 << 20) for _ in range(2)) < 25 * small + 0.1
    assert sum(map(len, lines)) < 6 * (300 << 10)
