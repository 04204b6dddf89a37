"""Kind ``container``: images run by the engine of this host, Docker's or Podman's.

A container has no capabilities, gains none, and has no network unless the job asks for one. What may be
run and mounted the node's settings list; without an engine in them this kind is off. ``pre``, the job's
own container and ``post`` run one after the other, beside them the sidecars in a network of their own.

All that an attempt makes carries its labels and is removed with it. To stop a job, cancel the task: the
container's stop signal, the grace, SIGKILL. Cancelling once more cuts the grace short.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

from django.conf import settings

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, Output
from jobs.executors.container_engine import (
    ENGINE_ERRORS,
    Engine,
    PullFailed,
    settled,
    threaded,
    words,
)
from jobs.executors.container_host import read_only, refusal
from jobs.executors.container_mounts import VOLUME
from jobs.executors.container_remains import labels, remove_attempt, sweep_containers
from jobs.executors.container_request import ContainerRequest, Program, host_name, read
from jobs.executors.container_run import Container
from jobs.executors.container_sidecars import ProbeFailed, wait_until_ready
from jobs.executors.container_spec import OUTPUT_FILE, PROGRESS_FILE, Surroundings
from jobs.executors.host_label import installation_of
from jobs.executors.told import most_output, result_of

# Set once this process has looked for what others before it left behind.
_swept: asyncio.Task[int] | None = None


async def run(assignment: Assignment, output: Output) -> Outcome:
    """Run the containers to their end, and remove all that was made for them."""
    try:
        request = read(assignment.payload)
    except InvalidJob as error:
        return _permanent(f"{error.field}: {error}", "InvalidJob")
    if not settings.CONTAINER_ENGINE:
        return _permanent(
            "containers are off here; see YARDMASTER_CONTAINER_ENGINE", "Misconfigured"
        )
    if why := refusal(request):
        return _permanent(why, "Refused")
    engine = Engine(settings.CONTAINER_ENGINE)
    try:
        await engine.connect()
    except ENGINE_ERRORS as error:
        text = f"the engine does not answer: {words(error)}"
        return Outcome(False, error=text, error_type="EngineUnavailable")
    await _sweep_once()
    return await _Attempt(engine, assignment, request, output).run()


def _permanent(error: str, error_type: str) -> Outcome:
    return Outcome(False, error=error, error_type=error_type, is_permanent=True)


async def _sweep_once() -> None:
    """Remove what was being made when the process before this one was killed."""
    global _swept
    if _swept is None or (_swept.done() and _swept.exception()):
        _swept = asyncio.create_task(threaded(lambda: sweep_containers(installation_of())))
    await asyncio.shield(_swept)


class _Failed(Exception):
    """What ends an attempt before its end."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome


class _Attempt:
    """One attempt, and all that the engine has of it."""

    def __init__(
        self, engine: Engine, assignment: Assignment, request: ContainerRequest, output: Output
    ) -> None:
        self._engine = engine
        self._assignment = assignment
        self._request = request
        self._output = output
        self._labels = labels(assignment)
        self._containers: list[Container] = []
        self._sidecars: list[Container] = []

    async def run(self) -> Outcome:
        try:
            return await self._run()
        except _Failed as failed:
            return failed.outcome
        except PullFailed as error:
            return Outcome(False, error=str(error)[:1000], error_type="PullFailed")
        except ENGINE_ERRORS as error:
            return Outcome(False, error=f"the engine: {words(error)}", error_type="EngineError")
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            # Whatever happens meanwhile, nothing may be left.
            await settled(asyncio.ensure_future(self._clear_away()))

    async def _run(self) -> Outcome:
        request = self._request
        around = await self._surround()
        hosts = await self._start_sidecars(around)
        await self._run_steps(around, request.pre, "pre", hosts)
        result = await self._run_main(around, hosts)
        await self._run_steps(around, request.post, "post", hosts)
        return Outcome(True, result)

    # -- What they share ---------------------------------------------------------------------------

    async def _surround(self) -> Surroundings:
        volumes, networks = {}, list(self._request.networks)
        for mount in self._request.mounts:
            if mount.type == VOLUME:
                volumes[mount.target] = name = self._name()
                await self._engine.call("create_volume", name, labels=self._labels)
        if self._request.sidecars:
            # To each other only: where else they may go, the job's networks say.
            networks.insert(0, name := self._name())
            await self._engine.call(
                "create_network", name, driver="bridge", internal=True, labels=self._labels
            )
        return Surroundings(
            self._request,
            self._assignment.environment,
            self._labels,
            volumes,
            read_only(self._request.mounts),
            tuple(networks),
        )

    def _name(self) -> str:
        return f"yardmaster-{self._assignment.id[:36]}-{secrets.token_hex(4)}"

    async def _start_sidecars(self, around: Surroundings) -> Mapping[str, str]:
        """Start one after the other, each when the one before is ready; return where they are."""
        hosts: dict[str, str] = {}
        for program in self._request.sidecars:
            output = _Sidelines(self._output, program.name)
            sidecar = await self._start(around, program, "sidecar", hosts, output)
            self._sidecars.append(sidecar)
            seen = await self._engine.call("inspect_container", sidecar.id)
            address = seen["NetworkSettings"]["Networks"][around.networks[0]]["IPAddress"]
            hosts[host_name(program.name)] = address
            if program.probe is None:
                continue
            try:
                await wait_until_ready(address, program.probe, lambda: sidecar.has_ended)  # noqa: B023
            except ProbeFailed as error:
                text = _with_tail(f"sidecar {program.name}: {error}", sidecar)
                raise _Failed(Outcome(False, error=text, error_type="ProbeFailed")) from None
        return hosts

    # -- Steps -------------------------------------------------------------------------------------

    async def _run_steps(
        self, around: Surroundings, steps: Sequence[Program], role: str, hosts: Mapping[str, str]
    ) -> None:
        for position, step in enumerate(steps):
            title = f"{role} {position}" + (f" ({step.name})" if step.name else "")
            try:
                async with asyncio.timeout(step.timeout_seconds):
                    await self._run_one(around, step, role, hosts, f"{title}: ")
            except TimeoutError:
                await self._stop()
                text = f"{title}: did not end within {step.timeout_seconds:g} s"
                raise _Failed(Outcome(False, error=text, error_type="Timeout")) from None

    async def _run_main(self, around: Surroundings, hosts: Mapping[str, str]) -> dict[str, object]:
        main = await self._run_one(around, self._request.main, "main", hosts, "")
        data, size = await main.read(OUTPUT_FILE, most_output())
        return result_of(data, size, self._output)

    async def _run_one(
        self,
        around: Surroundings,
        program: Program,
        role: str,
        hosts: Mapping[str, str],
        title: str,
    ) -> Container:
        """Run one container to its end; raise ``_Failed`` unless it ended well."""
        container = await self._start(around, program, role, hosts, self._output)
        progress = None
        if role == "main":
            progress = asyncio.create_task(container.follow_progress(PROGRESS_FILE))
        try:
            ended = await container.wait()
        finally:
            if progress is not None:
                progress.cancel()
        if ended.exit_code == 0:
            return container
        error, error_type = f"exit code {ended.exit_code}", "ExitCode"
        if ended.is_out_of_memory:
            error, error_type = "out of memory", "OutOfMemory"
        result = {"exit_code": ended.exit_code}
        text = title + _with_tail(error, container)
        raise _Failed(Outcome(False, result, error=text, error_type=error_type))

    async def _start(
        self,
        around: Surroundings,
        program: Program,
        role: str,
        hosts: Mapping[str, str],
        output: Output,
    ) -> Container:
        container = Container(self._engine, output, program)
        self._containers.append(container)
        await container.start(around, role, hosts)
        return container

    # -- The end -----------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """Ask what runs to end; sidecars serve until then and are killed."""
        running = [one for one in self._containers if one not in self._sidecars]
        if running:
            await running[-1].stop(self._assignment.grace_seconds)

    async def _clear_away(self) -> None:
        """Remove all that carries the labels of this attempt: also what an interrupted call has made."""
        try:
            failed = await threaded(
                lambda: remove_attempt(
                    self._engine.api, self._labels, with_shared=self._request.shares
                )
            )
        except ENGINE_ERRORS as error:
            failed = [words(error)]
        for text in failed:
            self._output.write("log", f"left behind in the engine: {text}", "warning")
        for container in self._containers:
            await container.close()


def _with_tail(error: str, container: Container) -> str:
    tail = str(container.tail)
    return f"{error}: {tail}" if tail else error


class _Sidelines:
    """What a sidecar prints, as log lines under its name."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._partial = ""

    def write(self, stream: str, text: str, level: str | None = None) -> None:
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._output.write("log", f"[{self._name}] {line}", level)
        if len(self._partial) > 16 << 10:
            self._output.write("log", f"[{self._name}] {self._partial}", level)
            self._partial = ""

    def progress(self, percent: float) -> None:
        """Only the job's own container tells how far it is."""
