"""Kind ``shell``: one program with a clean environment, its own user, session and directory.

A job's processes end with the job. When the program has ended, or is cancelled, everything that it
started is killed before the outcome is told; see ``shell_processes``. To stop a job, cancel the task:
SIGTERM, the grace, SIGKILL. Cancelling once more cuts the grace short.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from django.conf import settings

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, Output
from jobs.executors.command_fields import OUTPUT, PROGRESS
from jobs.executors.host_label import VARIABLE, worn
from jobs.executors.shell_command import ShellCommand, ShellWork, read
from jobs.executors.shell_folder import Account, Folder, NoAccount, pause
from jobs.executors.shell_processes import (
    IS_SUPPORTED,
    Family,
    adopting,
    bind_to,
    is_marked,
    scan,
    tasks_of,
)
from jobs.executors.told import (
    PROGRESS_BYTES,
    PROGRESS_SECONDS,
    most_output,
    percent_of,
    result_of,
)

SHELL = ("/bin/sh", "-eu")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 4 << 30,
    resource.RLIMIT_NOFILE: 1024,
}
# The system counts all tasks of a user, so a job may have this many more than there are before it.
MORE_TASKS = 512
READ_BYTES = 64 << 10
POLL_SECONDS = 0.05
TAIL_CHARS = 2000
# What outlives SIGKILL for so long is reported; the job goes on holding its slot.
REPORT_SECONDS = 5.0

# Ignored signals stay ignored across exec, and this process may well ignore some.
_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
# The program's own fault; from other errors a later attempt may not suffer.
_HOPELESS = (
    errno.E2BIG,
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOEXEC,
    errno.ENOTDIR,
    errno.EPERM,
)


async def run(assignment: Assignment, output: Output) -> Outcome:
    """Run the program to its end, and all that it started to theirs."""
    try:
        work = read(assignment.payload)
    except InvalidJob as error:
        return _permanent(f"{error.field}: {error}", "InvalidJob")
    if not IS_SUPPORTED:
        return _permanent("shell jobs need Linux", "Misconfigured")
    try:
        account = Account.find(settings.SHELL_USER) if os.geteuid() == 0 else None
    except NoAccount as error:
        return _permanent(str(error), "Misconfigured")
    try:
        folder = Folder(assignment, account)
    except OSError as error:
        return Outcome(False, error=f"no directory to work in: {error}", error_type="NotStarted")
    try:
        return await _run_all(folder, assignment, work, account, output)
    finally:
        await folder.remove(output)


def survivors(assignment: Assignment) -> list[int]:
    """Return the living processes of this host that carry the attempt in their environment."""
    marks = assignment.environment
    return [one.pid for one in scan() if one.is_alive and is_marked(one, marks)]


def _permanent(error: str, error_type: str) -> Outcome:
    return Outcome(False, error=error, error_type=error_type, is_permanent=True)


async def _run_all(
    folder: Folder,
    assignment: Assignment,
    work: ShellWork,
    account: Account | None,
    output: Output,
) -> Outcome:
    """Run what comes before, the program itself, and what comes after, as long as all goes well."""
    try:
        folder.write_files(work.files)
    except OSError as error:
        return Outcome(False, error=f"no file could be written: {error}", error_type="NotStarted")
    place = _Place(folder, assignment, account, output, work.aliases)
    for position, step in enumerate(work.pre):
        if not (outcome := await _run_step(place, step, f"pre {position}")).ok:
            return outcome
    main = await _run_main(place, work.main)
    if not main.ok:
        return main
    for position, step in enumerate(work.post):
        if not (outcome := await _run_step(place, step, f"post {position}")).ok:
            return outcome
    return main


@dataclass(frozen=True, slots=True)
class _Place:
    """Where all programs of one attempt run, and for whom."""

    folder: Folder
    assignment: Assignment
    account: Account | None
    output: Output
    aliases: Mapping[str, str]


async def _run_step(place: _Place, step: ShellCommand, title: str) -> Outcome:
    title += f" ({step.name})" if step.name else ""
    try:
        async with asyncio.timeout(step.timeout_seconds):
            outcome = await _run_one(place, step)
    except TimeoutError:
        error = f"{title}: did not end within {step.timeout_seconds:g} s"
        return Outcome(False, error=error, error_type="Timeout")
    return outcome if outcome.ok else replace(outcome, error=f"{title}: {outcome.error}")


async def _run_main(place: _Place, command: ShellCommand) -> Outcome:
    progress = asyncio.create_task(_follow_progress(place))
    try:
        outcome = await _run_one(place, command)
    finally:
        progress.cancel()
    if not outcome.ok:
        return outcome
    data, size = place.folder.read_told(place.folder.output, most_output())
    return replace(outcome, result=result_of(data, size, place.output))


async def _follow_progress(place: _Place) -> None:
    seen = b""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        data, _ = place.folder.read_told(place.folder.progress, PROGRESS_BYTES)
        percent = percent_of(data)
        if data != seen and percent is not None:
            place.output.progress(percent)
        seen = data


async def _run_one(place: _Place, command: ShellCommand) -> Outcome:
    try:
        job = _start(place, command)
    except OSError as error:
        return _not_started(error, command)
    except subprocess.SubprocessError:
        return Outcome(False, error="the program could not be confined", error_type="NotStarted")
    try:
        job.watch()
        await job.has_exited.wait()
    except asyncio.CancelledError:
        # A program that was faster has ended by itself, and that is what is told.
        if not job.has_exited.is_set():
            await job.terminate()
            raise
    finally:
        await job.end()
    return job.outcome()


# -- Start -----------------------------------------------------------------------------------------


def _start(place: _Place, command: ShellCommand) -> _Job:
    folder, account = place.folder, place.account
    folder.expect_output()
    told = {OUTPUT: str(folder.output), PROGRESS: str(folder.progress)}
    argv = command.argv
    if argv is None:
        folder.write_script(command.script or "")
        argv = (*SHELL, str(folder.script))
    environment = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": str(folder.work),
        "TMPDIR": str(folder.work),
        **command.env,
        **{name: told[meant] for name, meant in place.aliases.items()},
        **told,
        **place.assignment.environment,
        VARIABLE: worn(),
    }
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs, adopting():
        readers, writers = {}, {}
        for name in ("stdout", "stderr"):
            readers[name], writers[name] = os.pipe()
            ours.callback(os.close, readers[name])
            theirs.callback(os.close, writers[name])
            os.set_blocking(readers[name], False)
            folder.hand_over(writers[name])
        process = subprocess.Popen(  # noqa: S603 - to run what it is given is what this kind is for
            [argument.encode() for argument in argv],
            stdin=theirs.enter_context(folder.open_stdin(command.stdin)),
            stdout=writers["stdout"],
            stderr=writers["stderr"],
            cwd=folder.work,
            env={name.encode(): value.encode() for name, value in environment.items()},
            start_new_session=True,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=_confinement(account.uid if account else os.getuid()),
        )
        ours.pop_all()
        return _Job(process, place.assignment, place.output, readers)


def _confinement(uid: int) -> Callable[[], None]:
    """Return what the child does before exec, when it is the program's user already."""
    limits = []
    for what, most in (*LIMITS.items(), (resource.RLIMIT_NPROC, tasks_of(uid) + MORE_TASKS)):
        hard = resource.getrlimit(what)[1]
        bounded = most if hard == resource.RLIM_INFINITY else min(most, hard)
        limits.append((what, (bounded, bounded)))
    parent = os.getpid()

    def confine() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for what, both in limits:
            resource.setrlimit(what, both)
        bind_to(parent)

    return confine


def _not_started(error: OSError, command: ShellCommand) -> Outcome:
    program = command.argv[0] if command.argv else SHELL[0]
    if error.filename not in (program, program.encode()):
        # Not the program: a full disk, no descriptors, or no right to become another user.
        text = f"the node could not start a program: {error.strerror}"
        return Outcome(False, error=text, error_type="NotStarted")
    if error.errno == errno.ENOENT:
        text = f"program not found: {program[:200]}"
    else:
        text = f"{program[:200]} cannot be run: {error.strerror}"
    return Outcome(
        False, error=text, error_type="NotStarted", is_permanent=error.errno in _HOPELESS
    )


# -- While it runs ---------------------------------------------------------------------------------


class _Stream:
    """One pipe of the program. It is always read: where it is full, the program stands still."""

    def __init__(self, name: str, reader: int, output: Output) -> None:
        self.name = name
        self.tail = ""
        self._reader = reader
        self._output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def watch(self) -> None:
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def _read(self) -> bool:
        """Pass on what is there; return whether there may be more."""
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._reader)
        self._pass_on(self._decoder.decode(data))
        return bool(data)

    def close(self) -> None:
        """Pass on what is left. All writers are dead, so it is no more than a pipe can hold."""
        for _ in range(64):
            if not self._read():
                break
        self._pass_on(self._decoder.decode(b"", True))
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)

    def _pass_on(self, text: str) -> None:
        if text:
            self.tail = (self.tail + text)[-TAIL_CHARS:]
            self._output.write(self.name, text)


class _Job:
    """A program that runs."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        assignment: Assignment,
        output: Output,
        readers: dict[str, int],
    ) -> None:
        self.has_exited = asyncio.Event()
        self._process = process
        self._grace_seconds = assignment.grace_seconds
        self._output = output
        self._streams = {name: _Stream(name, fd, output) for name, fd in readers.items()}
        self._family = Family(process.pid, assignment.environment)
        self._handle: int | None = None
        self._ended: os.waitid_result | None = None

    def watch(self) -> None:
        """Read the pipes and wait for the exit, on the loop: no thread, no signal handler."""
        for stream in self._streams.values():
            stream.watch()
        try:
            self._handle = os.pidfd_open(self._process.pid)
        except (AttributeError, OSError):
            self._poll()
        else:
            asyncio.get_running_loop().add_reader(self._handle, self._note_exit)

    def _poll(self) -> None:
        if self._ended is not None or self._family.is_over:
            self.has_exited.set()
        else:
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    def _note_exit(self) -> None:
        self._unwatch()
        self.has_exited.set()

    def _unwatch(self) -> None:
        if self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None

    async def terminate(self) -> None:
        """Ask all to end and give them the grace; one more cancel takes the rest of it away."""
        deadline = time.monotonic() + self._grace_seconds
        # Who belongs to whom is seen best while the parents live.
        self._family.members()
        # What is stopped would not see the first without the second.
        self._family.signal(signal.SIGTERM)
        self._family.signal(signal.SIGCONT)
        wait = 0.005
        while self._family.members() and (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, left))
            wait = min(wait * 2, POLL_SECONDS)

    async def end(self) -> None:
        """Kill all that is left, and return when it is dead, whatever happens meanwhile."""
        began_at, is_reported, wait = time.monotonic(), False, 0.001
        while alive := self._family.kill():
            if not is_reported and time.monotonic() - began_at > REPORT_SECONDS:
                is_reported = True
                pids = ", ".join(str(one.pid) for one in alive[:10])
                self._output.write("log", f"still alive after SIGKILL: {pids}", "error")
            await pause(wait)
            wait = min(wait * 2, 0.5)
        self._unwatch()
        for stream in self._streams.values():
            stream.close()
        self._ended = self._family.bury()
        # Tells the one who started it that there is nothing left to wait for.
        self._process.returncode = self._ended.si_status if self._ended else -1

    def outcome(self) -> Outcome:
        ended = self._ended
        if ended is None:
            return Outcome(
                False,
                error="the exit code was lost",
                error_type="ExitCodeLost",
                effect_unknown=True,
            )
        if ended.si_code != os.CLD_EXITED:
            name = _signal_name(ended.si_status)
            result = {"exit_code": None, "signal": name}
            return Outcome(False, result, error=f"killed by {name}", error_type="Signal")
        if ended.si_status == 0:
            return Outcome(True, {"exit_code": 0})
        error = f"exit code {ended.si_status}"
        tail = self._streams["stderr"].tail
        lines = [line.strip() for line in tail.splitlines()]
        if len(tail) == TAIL_CHARS:
            # Cut at its beginning, perhaps in the middle of what must not be seen.
            del lines[0]
        if last := next((line for line in reversed(lines) if line), ""):
            error += f": {last[:300]}"
        return Outcome(False, {"exit_code": ended.si_status}, error=error, error_type="ExitCode")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
