"""Kind `shell`: what is run, in what surroundings, and what is told of it."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from jobs.errors import InvalidJob
from jobs.executors import shell, shell_folder
from jobs.executors.host_label import worn
from jobs.executors.shell_command import read, validate
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.programs import (
    as_root,
    attempt,
    cancelled,
    folders,
    living,
    output_of,
    running,
    until,
)

# From Python 3.12 on a fork beside threads is warned of; look-ups of other tests may have left some.
pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


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
        ({"script": "ls", "env": {"YARDMASTER_NODE": "x"}}, "payload.env.YARDMASTER_NODE"),
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


def test_a_payload_is_read_into_a_command():
    command = read({"argv": ["a", ""], "env": {"PATH": "/x"}, "stdin": "\0"}).main
    assert command.argv == ("a", "")
    assert (command.script, command.env, command.stdin) == (None, {"PATH": "/x"}, "\0")


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
    folder = Path(work).parent
    assert lines == {
        "JOB_OUTPUT": str(folder / "output"),
        "JOB_PROGRESS": str(folder / "progress"),
        "PATH": "/bin:/usr/bin",
        "LANG": "C.UTF-8",
        "MINE": "a=b",
        "JOB_ID": assignment.id,
        "JOB_FENCE": "7",
        "JOB_ATTEMPT": "2",
        "IDEMPOTENCY_KEY": assignment.id,
        "YARDMASTER_NODE": worn(),
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
    # Signals 32 and 33 belong to the C library, which lets nobody set them.
    reserved = 0b11 << 31
    assert [int(line.split()[1], 16) & ~reserved for line in lines] == [0, 0]


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
