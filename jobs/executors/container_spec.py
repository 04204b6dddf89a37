"""What the engine is asked for: one container of an attempt, with as few rights as it can have."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from docker.types import LogConfig
from docker.types import Mount as EngineMount

from jobs.executors.command_fields import OUTPUT, PROGRESS
from jobs.executors.container_mounts import BIND, TMPFS, VOLUME, Mount
from jobs.executors.container_request import FOLDER, WORK, ContainerRequest, Program

RUN = f"{FOLDER}/run"
OUTPUT_FILE = f"{FOLDER}/output"
PROGRESS_FILE = f"{FOLDER}/progress"
SHELL = ("sh", "-c")
PIDS = 512


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all containers of one attempt share, and what the engine knows it by."""

    request: ContainerRequest
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    # Volumes by where they are mounted.
    volumes: Mapping[str, str]
    # Directories that this host gives to read only, whatever the job asks for.
    read_only: frozenset[str]
    # The first is the attempt's own, where there are sidecars.
    networks: tuple[str, ...]


def create_options(
    api: Any, around: Surroundings, program: Program, role: str, hosts: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments of ``create_container``. ``hosts`` are sidecars by name."""
    entrypoint, command = _arguments(program)
    options: dict[str, Any] = {
        "image": str(program.image),
        "command": command or None,
        "environment": _environment(around, program),
        "labels": {**around.labels, "yardmaster.role": role},
        "host_config": _host_config(api, around, hosts),
    }
    if entrypoint:
        options["entrypoint"] = entrypoint
    if workdir := program.workdir or (WORK if program.files else None):
        options["working_dir"] = workdir
    if around.networks:
        endpoint = api.create_endpoint_config()
        options["networking_config"] = api.create_networking_config({around.networks[0]: endpoint})
    return options


def _arguments(program: Program) -> tuple[list[str], list[str]]:
    """Entry point and command; empty ones leave it to the image."""
    entrypoint, command = list(program.entrypoint), list(program.cmd)
    if program.run is not None:
        entrypoint = entrypoint or list(SHELL)
        command = command or [RUN]
    return entrypoint, command


def _environment(around: Surroundings, program: Program) -> dict[str, str]:
    told = {OUTPUT: OUTPUT_FILE, PROGRESS: PROGRESS_FILE}
    aliases = {name: told[meant] for name, meant in around.request.aliases.items()}
    return {**aliases, **program.env, **told, **around.environment}


def _host_config(api: Any, around: Surroundings, hosts: Mapping[str, str]) -> Any:
    request = around.request
    config = api.create_host_config(
        privileged=False,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        pids_limit=PIDS,
        network_mode=around.networks[0] if around.networks else "none",
        # What it prints is read while it runs; a copy on the host's disk would have no bounds.
        log_config=LogConfig(type="none"),
        mounts=[_engine_mount(mount, around) for mount in request.mounts],
        extra_hosts=dict(hosts) or None,
        mem_limit=request.memory,
        # Memory and swap together: as much as memory alone.
        memswap_limit=request.memory,
    )
    if request.cpus is not None:
        config["NanoCpus"] = int(request.cpus * 1e9)
    if request.gpus is not None:
        config["DeviceRequests"] = [dict(request.gpus)]
    return config


def _engine_mount(mount: Mount, around: Surroundings) -> EngineMount:
    if mount.type == TMPFS:
        # Some engines take no mode for none at all.
        mode = 0o1777 if mount.mode is None else mount.mode
        return EngineMount(mount.target, None, TMPFS, tmpfs_size=mount.size, tmpfs_mode=mode)
    if mount.type == VOLUME:
        return EngineMount(mount.target, around.volumes[mount.target], VOLUME)
    is_read_only = mount.is_read_only or mount.source in around.read_only
    return EngineMount(mount.target, mount.source, BIND, read_only=is_read_only)


# -- Files -----------------------------------------------------------------------------------------


def archive(program: Program) -> bytes:
    """What lies in the container before it starts: the script, the files, and room for its output."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, FOLDER, None, 0o755)
        _add(tar, WORK, None, 0o1777)
        if program.run is not None:
            _add(tar, RUN, program.run, 0o555)
        for path in (OUTPUT_FILE, PROGRESS_FILE):
            _add(tar, path, "", 0o666)
        for name, text in program.files.items():
            _add(tar, posixpath.join(program.workdir or WORK, name), text, 0o444)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, path: str, text: str | None, mode: int) -> None:
    """Add a file, or a directory where there is no text."""
    data = b"" if text is None else text.encode()
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
    entry.mode, entry.size = mode, len(data)
    tar.addfile(entry, io.BytesIO(data))


def read_member(chunks: Iterable[bytes], most: int) -> bytes:
    """The start of the one file in an archive that a container's engine sends; no link is followed."""
    try:
        with tarfile.open(fileobj=_Pieces(chunks), mode="r|") as tar:
            entry = tar.next()
            file = tar.extractfile(entry) if entry is not None and entry.isreg() else None
            return file.read(most) if file is not None else b""
    except tarfile.TarError:
        return b""


class _Pieces(io.RawIOBase):
    """Pieces as they come, to be read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        size = len(self._left) if size < 0 else size
        found, self._left = self._left[:size], self._left[size:]
        return found
