"""Kind `shell`: real programs, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, shell, shell_folder, shell_processes
from jobs.executors.shell_command import read, validate
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as somebody else")
# From Python 3.12 on a fork beside threads is warned of; look-ups of other tests may have left some.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


async def attempt(recorder: Recorder | None = None, **payload: Any) -> Outcome:
    return await shell.run(make_assignment(payload), recorder or Recorder())


def output_of(script: str, **payload: Any) -> str:
    """What a script that works prints."""
    recorder = Recorder()
    outcome = in_loop(attempt(recorder, script=script, **payload))
    assert outcome.ok, (outcome, recorder.written)
    return recorder.text("stdout")


def living(marker: str) -> list[int]:
    """Processes with the marker among their arguments; finds what the executor may have lost."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("yardmaster-shell-*"))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def marker() -> Iterator[str]:
    """A number of seconds that only the `sleep` of one test sleeps."""
    text = f"97{os.getpid()}{time.monotonic_ns() % 10**6}.25"
    yield text
    for pid in living(text):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch, tmp_path_factory) -> Iterator[None]:
    """Give each test a directory for temporary files, and see that nothing is left of any kind."""
    tmp_path_factory.getbasetemp()  # stays where it is
    # Most disks are slower than what is tested here.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as top:
        Path(top).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", top)
        descriptors = open_descriptors()
        yield
        assert folders() == []
        assert open_descriptors() == descriptors
    assert shell_processes._families == {}
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@contextlib.asynccontextmanager
async def running(
    script: str, recorder: Recorder | None = None, **fields: Any
) -> AsyncIterator[tuple[asyncio.Task[Outcome], Assignment]]:
    """A script that was started and has printed `ready`."""
    recorder = recorder or Recorder()
    assignment = make_assignment({"script": script}, **fields)
    task = asyncio.create_task(shell.run(assignment, recorder))
    await until(lambda: task.done() or "ready" in recorder.text("stdout"))
    assert not task.done(), task.result()
    yield task, assignment


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[Outcome]) -> float:
    """Cancel and return how long the end took."""
    began_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began_at


# -- Payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "payload"),
        (["ls"], "payload"),
        ({}, "payload"),
        ({"argv": ["ls"], "script": "ls"}, "payload"),
        ({"argv": ["ls"], "cwd": "/"}, "payload.cwd"),
        ({"argv": ["ls"], "user": "root"}, "payload.user"),
        ({"argv": "ls"}, "payload.argv"),
        ({"argv": []}, "payload.argv"),
        ({"argv": [""]}, "payload.argv"),
        ({"argv": ["ls", 1]}, "payload.argv.1"),
        ({"argv": ["ls", "a\0b"]}, "payload.argv.1"),
        ({"argv": ["ls", "\ud800"]}, "payload.argv.1"),
        ({"argv": ["ls"] * 1001}, "payload.argv"),
        ({"argv": ["ls", "a" * (128 << 10)]}, "payload.argv.1"),
        ({"argv": ["a" * (100 << 10)] * 6}, "payload.argv"),
        ({"script": ""}, "payload.script"),
        ({"script": " \n"}, "payload.script"),
        ({"script": 5}, "payload.script"),
        ({"script": "a\0b"}, "payload.script"),
        ({"script": "#" * ((256 << 10) + 1)}, "payload.script"),
        ({"script": "ls", "stdin": b"x"}, "payload.stdin"),
        ({"script": "ls", "stdin": "x" * ((1 << 20) + 1)}, "payload.stdin"),
        ({"script": "ls", "env": []}, "payload.env"),
        ({"script": "ls", "env": {"A B": ""}}, "payload.env"),
        ({"script": "ls", "env": {"1A": ""}}, "payload.env"),
        ({"script": "ls", "env": {"A=B": ""}}, "payload.env"),
        ({"script": "ls", "env": {"Ä": ""}}, "payload.env"),
        ({"script": "ls", "env": {"": ""}}, "payload.env"),
        ({"script": "ls", "env": {"A\n": ""}}, "payload.env"),
        ({"script": "ls", "env": {"A": 1}}, "payload.env.A"),
        ({"script": "ls", "env": {"A": "a\0LD_PRELOAD=x"}}, "payload.env.A"),
        ({"script": "ls", "env": {"JOB_ID": "x"}}, "payload.env.JOB_ID"),
        ({"script": "ls", "env": {"JOB_FENCE": "9"}}, "payload.env.JOB_FENCE"),
        ({"script": "ls", "env": {"IDEMPOTENCY_KEY": "x"}}, "payload.env.IDEMPOTENCY_KEY"),
        ({"script": "ls", "env": {"LD_PRELOAD": "/x.so"}}, "payload.env.LD_PRELOAD"),
        ({"script": "ls", "env": {"LD_LIBRARY_PATH": "/x"}}, "payload.env.LD_LIBRARY_PATH"),
        ({"script": "ls", "env": {f"A{n}": "" for n in range(101)}}, "payload.env"),
        ({"script": "ls", "env": {"A": "a" * (40 << 10), "B": "b" * (40 << 10)}}, "payload.env"),
    ],
)
def test_a_wrong_payload_is_refused_by_the_name_of_its_field(payload, field):
    with pytest.raises(InvalidJob) as caught:
        validate(payload)
    assert caught.value.field == field
    outcome = in_loop(shell.run(make_assignment(payload), Recorder()))
    assert not outcome.ok
    assert outcome.is_permanent


def test_checking_a_payload_starts_and_loads_nothing():
    code = (
        "import sys; from jobs.executors import KINDS;"
        "KINDS['shell'].validate({'argv': ['ls'], 'env': {'PATH': '/bin'}, 'stdin': 'x'});"
        "sys.exit('asyncio' in sys.modules or 'subprocess' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- How it ends -----------------------------------------------------------------------------------


def test_a_program_runs_with_its_arguments_as_they_are():
    recorder = Recorder()
    outcome = in_loop(attempt(recorder, argv=["printf", "%s|", "a b", "$HOME", "*", "ä", ""]))
    assert (outcome.ok, outcome.result) == (True, {"exit_code": 0})
    assert recorder.text("stdout") == "a b|$HOME|*|ä||"


def test_a_script_ends_at_its_first_failure():
    recorder = Recorder()
    assert not in_loop(attempt(recorder, script="echo one\nfalse\necho two")).ok
    assert not in_loop(attempt(recorder, script='echo "$MISSING"\necho three')).ok
    assert recorder.text("stdout") == "one\n"


def test_the_exit_code_and_the_last_line_of_errors_are_told():
    outcome = in_loop(
        attempt(script="echo first >&2; echo '  the disk is full ' >&2; echo >&2; exit 3")
    )
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)
    assert outcome.error_type == "ExitCode"
    assert outcome.error == "exit code 3: the disk is full"
    assert outcome.result == {"exit_code": 3}
    assert in_loop(attempt(script="exit 255")).error == "exit code 255"
    long = in_loop(attempt(script="head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert len(long.error or "") < 400


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM", "SIGPIPE"])
def test_the_signal_that_killed_a_program_is_named(name):
    outcome = in_loop(attempt(script=f"kill -{name[3:]} $$"))
    assert (outcome.ok, outcome.is_permanent) == (False, False)
    assert (outcome.error, outcome.error_type) == (f"killed by {name}", "Signal")
    assert outcome.result == {"exit_code": None, "signal": name}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["/no/such/program"], "program not found: /no/such/program"),
        (["no-such-program"], "program not found: no-such-program"),
        (["/etc/passwd"], "/etc/passwd cannot be run: Permission denied"),
        (["/etc"], "/etc cannot be run: Permission denied"),
        (["/etc/passwd/x"], "/etc/passwd/x cannot be run: Not a directory"),
    ],
)
def test_a_program_that_cannot_be_run_fails_for_good(argv, text):
    outcome = in_loop(attempt(argv=argv))
    assert (outcome.ok, outcome.is_permanent) == (False, True)
    assert (outcome.error, outcome.error_type) == (text, "NotStarted")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.EPERM])
def test_what_the_host_lacks_may_be_there_later(monkeypatch, number):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", fail)
    outcome = in_loop(attempt(argv=["true"]))
    assert (outcome.ok, outcome.is_permanent, outcome.error_type) == (False, False, "NotStarted")


def test_a_program_that_cannot_be_confined_is_not_run(monkeypatch, marker):
    def fail(parent: int) -> None:
        raise OSError("no_new_privs")

    monkeypatch.setattr(shell, "bind_to", fail)
    outcome = in_loop(attempt(argv=["sleep", marker]))
    assert (outcome.ok, outcome.is_permanent) == (False, False)
    assert living(marker) == []


def test_an_exit_code_that_somebody_else_took_is_no_success(monkeypatch):
    def taken(kind: int, pid: int, options: int) -> None:
        os.waitpid(pid, 0)
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", taken)
    outcome = in_loop(attempt(argv=["true"]))
    assert (outcome.ok, outcome.effect_unknown) == (False, True)


def test_the_exit_is_noticed_where_there_are_no_process_descriptors(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(shell, "POLL_SECONDS", 0.01)
    outcome = in_loop(attempt(script="sleep 97 & sleep 0.05; exit 4"))
    assert outcome.result == {"exit_code": 4}


# -- Surroundings ----------------------------------------------------------------------------------


def test_the_environment_holds_nothing_of_the_node(monkeypatch):
    monkeypatch.setenv("YARDMASTER_SECRET_KEY", "canary")
    monkeypatch.setenv("DATABASE_URL", "canary")
    monkeypatch.setenv("LD_PRELOAD", "")
    recorder = Recorder()
    assignment = make_assignment({"argv": ["env"], "env": {"MINE": "a=b", "PATH": "/bin:/usr/bin"}})
    assert in_loop(shell.run(assignment, recorder)).ok
    lines = dict(line.split("=", 1) for line in recorder.text("stdout").splitlines())
    work = lines.pop("HOME")
    assert lines.pop("TMPDIR") == work
    assert lines == {
        "PATH": "/bin:/usr/bin",
        "LANG": "C.UTF-8",
        "MINE": "a=b",
        "JOB_ID": assignment.id,
        "JOB_FENCE": "7",
        "JOB_ATTEMPT": "2",
        "IDEMPOTENCY_KEY": assignment.id,
    }


def test_no_descriptor_of_the_node_is_inherited(tmp_path):
    with (tmp_path / "secret").open("wb") as secret:
        os.set_inheritable(secret.fileno(), True)
        assert output_of("ls /proc/$$/fd").split() == ["0", "1", "10", "2"]  # 10 is the script


@as_root
def test_programs_run_as_a_user_without_rights(settings, request):
    settings.SHELL_USER = "nobody"
    entry = pwd.getpwnam("nobody")
    groups = os.getgroups()
    request.addfinalizer(lambda: os.setgroups(groups))
    os.setgroups([4, 5, 6])
    lines = dict(
        line.split(":\t", 1)
        for line in output_of("cat /proc/self/status").splitlines()
        if ":\t" in line
    )
    assert lines["Uid"].split() == [str(entry.pw_uid)] * 4
    assert lines["Gid"].split() == [str(entry.pw_gid)] * 4
    assert lines["Groups"].split() == []
    assert lines["NoNewPrivs"] == "1"
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == 0
    # What root may read and others may not stays closed: the environment of this very process.
    text = output_of(f"cat /proc/{os.getpid()}/environ /proc/1/environ 2>&1 || echo closed")
    assert text.splitlines()[-1] == "closed"
    assert "PATH=" not in text


@as_root
@pytest.mark.parametrize(
    ("user", "word"), [("no-such-user", "does not exist"), ("root", "is root")]
)
def test_without_a_proper_user_nothing_runs(settings, user, word):
    settings.SHELL_USER = user
    recorder = Recorder()
    outcome = in_loop(attempt(recorder, argv=["echo", "ran"]))
    assert (outcome.ok, outcome.is_permanent, outcome.error_type) == (False, True, "Misconfigured")
    assert user in (outcome.error or "")
    assert word in (outcome.error or "")
    assert recorder.written == []


def test_limits_are_set_hard():
    limits = {}
    for line in output_of("cat /proc/self/limits").splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[:2]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == [str(4 << 30)] * 2
    assert limits["Max open files"] == ["1024", "1024"]
    soft, hard = limits["Max processes"]
    assert soft == hard
    assert shell.MORE_TASKS <= int(soft) < 100_000


@as_root
def test_a_storm_of_forks_stays_below_the_limit(monkeypatch, marker):
    monkeypatch.setattr(shell, "MORE_TASKS", 20)
    script = f"i=0; while [ $i -lt 60 ]; do sleep {marker} & i=$((i+1)); done"
    outcome = in_loop(attempt(script=script))
    assert not outcome.ok
    assert "fork" in (outcome.error or "").lower()
    assert living(marker) == []


def test_ignored_and_blocked_signals_are_not_inherited():
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        recorder = Recorder()
        argv = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
        assert in_loop(attempt(recorder, argv=argv)).ok
    finally:
        signal.signal(signal.SIGTERM, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    lines = recorder.text("stdout").splitlines()
    assert [int(line.split()[1], 16) for line in lines] == [0, 0]


def test_a_program_has_a_session_and_a_directory_of_its_own():
    first = output_of("echo $$; ps -o sid= -p $$; pwd; echo $HOME; stat -c %a .; ls -A; umask")
    pid, session, where, home, mode, umask = first.split()
    assert pid == session
    assert where == home
    assert (mode, umask) == ("700", "0077")
    assert output_of("pwd").strip() != where
    assert not Path(where).exists()


def test_a_script_is_not_seen_among_the_arguments():
    text = output_of("tr '\\0' ' ' < /proc/$$/cmdline; echo; ls -l /proc/$$/fd/10 # geheim")
    assert "geheim" not in text
    assert text.startswith("/bin/sh -eu /")
    path = text.split()[2]
    assert not Path(path).exists()
    assert output_of('stat -c %a "$0"').strip() == "400"


def test_stdin_is_what_was_given_and_else_empty():
    text = "zwölf\n\0" * 100_000
    recorder = Recorder()
    assert in_loop(attempt(recorder, argv=["cat"], stdin=text)).ok
    assert recorder.text("stdout") == text
    assert output_of("cat; echo end") == "end\n"
    assert output_of("cat /dev/stdin", stdin="again") == "again"


DEEP_AND_CLOSED = """
    mkdir -p full/a full/b closed/inner
    echo x > full/a/file
    echo x > closed/inner/file
    chmod 000 closed/inner closed
    ln -s /etc link
    ln -s "$OUTSIDE" outside
    mkfifo pipe
    mkdir -p "$(yes d | head -n 1900 | tr '\\n' /)"
    chmod 000 .
"""


@pytest.mark.parametrize("user", [pytest.param("root", marks=as_root), "other"])
def test_the_directory_is_removed_however_deep_and_closed_it_is(monkeypatch, tmp_path, user):
    """And what its links lead to is not. Who is not root has to open what was closed first."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    own = os.geteuid()
    if user == "other" and own == 0:
        # A shell that is half somebody else would become root again.
        monkeypatch.setattr(shell, "SHELL", ("/bin/sh", "-eup"))
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        output_of(DEEP_AND_CLOSED, env={"OUTSIDE": str(tmp_path / "kept")})
    finally:
        os.seteuid(own)
    assert folders() == []
    assert (tmp_path / "kept" / "file").exists()
    assert stat.S_IMODE(Path("/etc").stat().st_mode) == 0o755


def test_a_directory_that_cannot_be_removed_is_reported(monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    recorder = Recorder()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", fail)
        assert in_loop(attempt(recorder, argv=["true"])).ok
    [(stream, text, level)] = recorder.written
    [left] = folders()
    assert (stream, level) == ("log", "warning")
    assert str(left) in text
    shutil.rmtree(left)


def test_a_directory_that_is_full_does_not_stop_the_others(monkeypatch):
    """A neighbour on the loop gets its turn while thousands of files are being removed."""
    monkeypatch.setattr(shell_folder, "SLICE_SECONDS", 0.001)
    turns = 0
    real = shell_folder.Folder.remove

    async def remove(self: shell_folder.Folder, output: Recorder) -> None:
        beating = asyncio.create_task(beat())
        await real(self, output)
        beating.cancel()

    async def beat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(shell_folder.Folder, "remove", remove)
    assert in_loop(attempt(script="seq 20000 | xargs touch")).ok
    assert turns > 5


# -- Output ----------------------------------------------------------------------------------------


def test_output_is_passed_on_by_stream_while_the_program_runs():
    recorder = Recorder()

    async def work() -> None:
        async with running("echo ready; echo problem >&2; sleep 97", recorder) as (task, _):
            await until(lambda: recorder.text("stderr"))
            assert not task.done()
            await cancelled(task)

    in_loop(work())
    assert (recorder.text("stdout"), recorder.text("stderr")) == ("ready\n", "problem\n")


def test_characters_are_whole_and_bad_bytes_replaced():
    assert (
        output_of("printf 'gr\\303'; sleep 0.05; printf '\\274n \\377 end\\303'") == "grün � end�"
    )


def test_the_streams_can_be_opened_again_by_name():
    recorder = Recorder()
    outcome = in_loop(attempt(recorder, script="echo out > /dev/stdout; echo err > /dev/stderr"))
    assert outcome.ok, outcome
    assert (recorder.text("stdout"), recorder.text("stderr")) == ("out\n", "err\n")


def test_a_flood_is_drained_in_bounded_memory():
    class Counter(Recorder):
        count = longest = 0

        def write(self, stream: str, text: str, level: str | None = None) -> None:
            self.count += len(text)
            self.longest = max(self.longest, len(text))

    counter = Counter()
    tracemalloc.start()
    try:
        outcome = in_loop(
            attempt(counter, script="head -c 100000000 /dev/zero; yes | head -c 1000000 >&2")
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.ok
    assert counter.count == 101_000_000
    assert counter.longest <= 64 << 10
    assert peak < 4 << 20


def test_all_that_was_printed_before_the_end_is_passed_on():
    assert output_of("head -c 60000 /dev/zero | tr '\\0' x") == "x" * 60_000


# -- The end of all processes ----------------------------------------------------------------------


def test_cancelling_asks_first_and_what_was_said_last_is_heard():
    recorder = Recorder()

    async def work() -> float:
        script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
        async with running(script, recorder) as (task, assignment):
            assert shell.survivors(assignment)
            seconds = await cancelled(task)
            assert shell.survivors(assignment) == []
            return seconds

    assert in_loop(work()) < 1
    assert recorder.text("stdout") == "ready\nbye\n"


def test_what_does_not_listen_is_killed_after_the_grace(marker):
    async def work() -> float:
        script = f"trap '' TERM; sleep {marker} & echo ready; wait; sleep {marker}"
        async with running(script, grace_seconds=0.3) as (task, assignment):
            await until(lambda: living(marker))
            seconds = await cancelled(task)
            assert shell.survivors(assignment) == []
            return seconds

    assert 0.3 <= in_loop(work()) < 2
    assert living(marker) == []


def test_the_grace_is_for_the_whole_group():
    """The shell dies at once; what it started may still put its things in order."""
    recorder = Recorder()

    async def work() -> float:
        child = "trap 'sleep 0.2; echo tidied; exit' TERM; echo ready; while :; do sleep 0.02; done"
        script = f'sh -c "{child}"; echo after'
        async with running(script, recorder, grace_seconds=5) as (task, _):
            return await cancelled(task)

    assert 0.2 <= in_loop(work()) < 3
    assert "tidied" in recorder.text("stdout")


def test_a_second_cancel_cuts_the_grace_short(marker):
    async def work() -> float:
        script = f"trap '' TERM; echo ready; sleep {marker}; sleep {marker}"
        async with running(script, grace_seconds=60) as (task, _):
            task.cancel()
            await asyncio.sleep(0.1)
            return await cancelled(task)

    assert in_loop(work()) < 1
    assert living(marker) == []


def test_a_stopped_program_is_ended_too(marker):
    async def work() -> float:
        async with running(f"echo ready; kill -STOP $$; sleep {marker}", grace_seconds=3) as (
            task,
            _,
        ):
            await asyncio.sleep(0.05)
            return await cancelled(task)

    assert in_loop(work()) < 1
    assert living(marker) == []


ESCAPES = {
    "background": "sleep {0} &",
    "ignoring": "(trap '' TERM HUP; sleep {0}) &",
    "another session": "setsid sleep {0} &",
    "orphan": "(setsid sleep {0} &) &",
    "without environment": "setsid env -i sleep {0} &",
    "orphan without environment": "(setsid env -i setsid sleep {0} &) &",
    "child of an orphan": "(setsid env -i sh -c 'setsid sh -c \"sleep {0}; :\"; :' &) &",
    "stopped": "setsid sh -c 'kill -STOP $$; exec sleep {0}' x {0} &",
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("end", ["exit", "cancel"])
def test_whatever_a_job_started_ends_with_it(marker, escape, end):
    async def work() -> None:
        script = escape.format(marker) + "\nsleep 0.15; echo ready;"
        if end == "exit":
            assignment = make_assignment({"script": script})
            assert (await shell.run(assignment, Recorder())).ok
        else:
            async with running(script + f"sleep {marker}", grace_seconds=0.1) as (task, assignment):
                await until(lambda: len(living(marker)) >= 2)
                await cancelled(task)
        assert shell.survivors(assignment) == []

    in_loop(work())
    assert living(marker) == []


def test_processes_of_other_jobs_are_left_alone(marker):
    """Also those that cannot be told apart; they go when the last job goes that may have made them."""

    async def work() -> None:
        markers = marker, marker + "1"

        def counts() -> tuple[int, int]:
            return len(living(markers[0])), len(living(markers[1]))

        hidden = "(setsid env -i setsid sleep {0} &) & setsid sleep {0} & echo ready; sleep {0}"
        async with (
            running(hidden.format(markers[0])) as (first, _),
            running(hidden.format(markers[1])) as (second, _),
        ):
            await until(lambda: counts() == (3, 3))
            assert (await attempt(script="exit 0")).ok
            assert counts() == (3, 3)
            await cancelled(second)
            # The hidden one may have been started by the first as well.
            assert counts() == (3, 1)
            await cancelled(first)
            assert counts() == (0, 0)

    in_loop(work())


def test_processes_of_nobody_are_left_alone(marker):
    with subprocess.Popen(["sleep", marker], start_new_session=True) as older:
        time.sleep(0.03)  # the system tells the age of processes in hundredths
        assert in_loop(attempt(script="exit 0")).ok
        assert older.poll() is None
        older.kill()
    code = f"import subprocess; subprocess.Popen(['sleep', '{marker}']).wait()"

    async def work() -> None:
        async with running("echo ready; sleep 97") as (task, _):
            with subprocess.Popen([sys.executable, "-c", code]) as younger:
                while not living(marker):
                    await asyncio.sleep(0.01)
                await cancelled(task)
                assert younger.poll() is None
                assert len(living(marker)) == 1
                younger.kill()
                os.kill(living(marker)[0], signal.SIGKILL)

    in_loop(work())


@pytest.mark.parametrize("child", ["sleep {0}", "sh -c 'trap : TERM; sleep {0}; sleep {0}'"])
def test_what_is_seen_to_be_ours_goes_at_once_beside_other_jobs(marker, child):
    """Without session and environment in common; its parent, while it lived, is what tells."""

    async def work() -> None:
        hidden = f"setsid env -i {child.format(marker)} & echo ready; sleep 97"
        async with running("echo ready; sleep 97") as (other, _):
            await asyncio.sleep(0.03)  # the other is older, and might have started it
            async with running(hidden, grace_seconds=0.1) as (task, _):
                await until(lambda: living(marker))
                await cancelled(task)
            assert living(marker) == []
            await cancelled(other)

    in_loop(work())


def test_a_cancel_in_the_moment_of_the_exit_comes_too_late(monkeypatch):
    tasks: list[asyncio.Task[Outcome]] = []
    real = shell._Job._note_exit

    def note_exit(self: shell._Job) -> None:
        real(self)
        tasks[0].cancel()

    monkeypatch.setattr(shell._Job, "_note_exit", note_exit)

    async def work() -> Outcome:
        tasks.append(asyncio.create_task(attempt(argv=["true"])))
        return await tasks[0]

    assert in_loop(work()).ok


def test_a_cancel_while_cleaning_up_changes_nothing(marker):
    """The program has ended by itself; that it is asked to end as well comes too late."""

    async def work() -> Outcome:
        task = asyncio.create_task(
            attempt(script=f"setsid sleep {marker} & seq 5000 | xargs touch")
        )
        while not living(marker):
            await asyncio.sleep(0.001)
        while living(marker):
            await asyncio.sleep(0)
        for _ in range(20):
            task.cancel()
            await asyncio.sleep(0)
        return await task

    assert in_loop(work()).ok


def test_a_cancel_at_the_very_start_leaves_nothing(marker):
    async def work() -> None:
        task = asyncio.create_task(attempt(argv=["sleep", marker]))
        await asyncio.sleep(0)
        await cancelled(task)

    in_loop(work())
    assert living(marker) == []


def test_what_outlives_the_kill_is_reported_and_waited_for(monkeypatch):
    monkeypatch.setattr(shell, "REPORT_SECONDS", 0.05)
    real = shell.Family.kill
    until = time.monotonic() + 0.4

    def kill(self: shell.Family) -> list[Any]:
        immortal = [self.members(), [_Fake()]][time.monotonic() < until]
        return real(self) or (immortal if time.monotonic() < until else [])

    class _Fake:
        pid = 4711

    monkeypatch.setattr(shell.Family, "kill", kill)
    recorder = Recorder()
    assert in_loop(attempt(recorder, argv=["true"])).ok
    assert time.monotonic() >= until
    assert recorder.written == [("log", "still alive after SIGKILL: 4711", "error")]


def test_a_program_dies_with_its_node(marker):
    code = f"""
import asyncio, os, django
django.setup()
from jobs.executors import shell
from tests.jobs.executors.attempts import Recorder, make_assignment
asyncio.run(shell.run(make_assignment({{"argv": ["sleep", "{marker}"]}}), Recorder()))
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    environment["TMPDIR"] = tempfile.gettempdir()
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as node:
        deadline = time.monotonic() + 5
        while not [pid for pid in living(marker) if pid != node.pid]:
            assert time.monotonic() < deadline
            assert node.poll() is None
            time.sleep(0.01)
        node.kill()
    deadline = time.monotonic() + 2
    while living(marker):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Nobody was left to remove it.
    [left] = folders()
    (left / "work").rmdir()
    left.rmdir()


def test_no_thread_is_started_and_orphans_are_not_adopted_for_longer_than_needed():
    before = threading.active_count()

    async def work() -> int:
        jobs = [attempt(script="sleep 0.05; exit 0") for _ in range(20)]
        outcomes = asyncio.gather(*jobs)
        await asyncio.sleep(0.01)
        during = threading.active_count()
        assert all(outcome.ok for outcome in await outcomes)
        return during

    assert in_loop(work()) == before
    # A new orphan goes to whoever took them before.
    with subprocess.Popen(["sh", "-c", "sleep 0.2 & echo $!"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.wait()
        assert Path(f"/proc/{orphan}/stat").read_text().split()[3] != str(os.getpid())


def test_a_payload_is_read_into_a_command():
    command = read({"argv": ["a", ""], "env": {"PATH": "/x"}, "stdin": "\0"})
    assert command.argv == ("a", "")
    assert (command.script, command.env, command.stdin) == (None, {"PATH": "/x"}, "\0")
