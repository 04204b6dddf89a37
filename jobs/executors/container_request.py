"""The payload of a ``container`` job. Pure: it starts nothing and reads nothing.

    {"image": "python:3.12-slim", "run": "python report.py > $JOB_OUTPUT", "files": {"report.py": "…"},
     "env": {"REGION": "eu"}, "limits": {"cpus": ".5", "memory": "200m"}}

``run`` is a script; the image's ``sh`` runs it where no ``entrypoint`` says what else does. ``cmd`` takes
the place of its path in the arguments. ``pre``, ``post`` and ``sidecars`` are containers of their own,
with the ``mounts``, ``networks`` and ``limits`` of the job's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.command_fields import (
    MAX_COMMANDS,
    RESERVED,
    read_aliases,
    read_argv,
    read_env,
    read_files,
    read_list,
    read_name,
    read_object,
    read_script,
    read_seconds,
    read_size,
    read_text,
)
from jobs.executors.container_gpus import read_gpus
from jobs.executors.container_images import Image, read_image
from jobs.executors.container_mounts import VOLUME, Mount, read_mounts

_PROGRAM = ("image", "run", "cmd", "entrypoint", "env", "files", "registry", "workdir")
_SHARED = ("mounts", "networks", "limits")
_BESIDE = ("sidecars", "pre", "post", "gpus", "aliases")
KEYS = (*_PROGRAM, *_SHARED, *_BESIDE)
STEP_KEYS = ("name", *_PROGRAM, "timeout_seconds")
SIDECAR_KEYS = ("name", *_PROGRAM, "probe")
MAX_NETWORKS = 10
MAX_SIDECARS = 10
MAX_PATH = 256
PROBE_SECONDS = 60.0
# What an engine can start a container with at all.
MIN_MEMORY = 6 << 20
MAX_CPUS = 4096

# Ours in every container: the script, the files it may write its output to, and a place to work in.
FOLDER = "/yardmaster"
WORK = f"{FOLDER}/work"

_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Words that engines read as something else than the name of a network.
_NO_NETWORKS = ("host", "none", "private", "container", "ns", "pod", "pasta", "slirp4netns")
_CPUS = re.compile(r"\d{0,4}(?:\.\d{1,9})?|\d{1,4}\.")


@dataclass(frozen=True, slots=True)
class Probe:
    path: str
    port: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Program:
    """One container: what runs in it. A step and a sidecar have a name."""

    image: Image
    run: str | None
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, str]
    # User and password; never in anything that can be seen.
    registry: tuple[str, str] | None
    workdir: str | None
    name: str = ""
    timeout_seconds: float | None = None
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    main: Program
    pre: tuple[Program, ...]
    post: tuple[Program, ...]
    sidecars: tuple[Program, ...]
    mounts: tuple[Mount, ...]
    networks: tuple[str, ...]
    cpus: float | None
    memory: int | None
    gpus: Mapping[str, Any] | None
    aliases: Mapping[str, str]

    @property
    def programs(self) -> Sequence[Program]:
        return (*self.sidecars, *self.pre, self.main, *self.post)

    @property
    def shares(self) -> bool:
        """Whether an attempt makes more than containers: volumes, or a network for sidecars."""
        return bool(self.sidecars) or any(mount.type == VOLUME for mount in self.mounts)


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when no node could ever run this payload."""
    read(payload)


def read(payload: Any) -> ContainerRequest:
    """Return what a payload describes, or raise ``InvalidJob``."""
    read_object(payload, KEYS, "payload", "the payload of a container job")
    main = _read_program(payload, "payload", None)
    mounts = read_mounts(payload.get("mounts", []), "payload.mounts", FOLDER)
    cpus, memory = _read_limits(payload.get("limits", {}), "payload.limits")
    request = ContainerRequest(
        main=main,
        pre=_read_programs(payload.get("pre", []), "payload.pre", main),
        post=_read_programs(payload.get("post", []), "payload.post", main),
        sidecars=_read_sidecars(payload.get("sidecars", []), "payload.sidecars"),
        mounts=mounts,
        networks=_read_networks(payload.get("networks", []), "payload.networks"),
        cpus=cpus,
        memory=memory,
        gpus=read_gpus(payload["gpus"], "payload.gpus") if "gpus" in payload else None,
        aliases=read_aliases(payload.get("aliases", {}), main.env, "payload.aliases"),
    )
    for where, program in _places(request):
        if program.files and any(mount.holds(program.workdir or WORK) for mount in mounts):
            raise InvalidJob("files cannot be put into a mount", field=f"{where}.files")
    return request


def _places(request: ContainerRequest) -> list[tuple[str, Program]]:
    groups = {"sidecars": request.sidecars, "pre": request.pre, "post": request.post}
    found = [("payload", request.main)]
    for key, programs in groups.items():
        found += [(f"payload.{key}.{index}", one) for index, one in enumerate(programs)]
    return found


# -- Programs --------------------------------------------------------------------------------------


def _read_program(value: dict[str, Any], field: str, default: Program | None) -> Program:
    """``default`` lends its image to a step that names none."""
    if "image" not in value and default is None:
        raise InvalidJob("the name of an image is needed", field=f"{field}.image")
    registry = None
    if "registry" in value:
        registry = _read_registry(value["registry"], f"{field}.registry")
    if "image" in value:
        image = _read_image(value["image"], f"{field}.image")
    else:
        assert default is not None
        image, registry = default.image, registry or default.registry
    return Program(
        image=image,
        run=read_script(value["run"], f"{field}.run") if "run" in value else None,
        cmd=_read_arguments(value.get("cmd", []), f"{field}.cmd"),
        entrypoint=_read_arguments(value.get("entrypoint", []), f"{field}.entrypoint"),
        env=read_env(value.get("env", {}), f"{field}.env", RESERVED),
        files=read_files(value.get("files", {}), f"{field}.files"),
        registry=registry,
        workdir=_read_workdir(value["workdir"], f"{field}.workdir") if "workdir" in value else None,
        name=read_name(value["name"], f"{field}.name") if "name" in value else "",
        timeout_seconds=(
            read_seconds(value["timeout_seconds"], f"{field}.timeout_seconds")
            if "timeout_seconds" in value
            else None
        ),
        probe=_read_probe(value["probe"], f"{field}.probe") if "probe" in value else None,
    )


def _read_programs(value: Any, field: str, main: Program) -> tuple[Program, ...]:
    return tuple(
        _read_program(
            read_object(one, STEP_KEYS, f"{field}.{index}", "a step"), f"{field}.{index}", main
        )
        for index, one in enumerate(read_list(value, MAX_COMMANDS, field))
    )


def _read_sidecars(value: Any, field: str) -> tuple[Program, ...]:
    sidecars: list[Program] = []
    for index, one in enumerate(read_list(value, MAX_SIDECARS, field)):
        where = f"{field}.{index}"
        read_object(one, SIDECAR_KEYS, where, "a sidecar")
        if "name" not in one:
            raise InvalidJob("the others reach it by its name", field=f"{where}.name")
        sidecar = _read_program(one, where, None)
        name = host_name(sidecar.name)
        if not name or name in map(host_name, (other.name for other in sidecars)):
            raise InvalidJob("no host name of its own can be made of it", field=f"{where}.name")
        sidecars.append(sidecar)
    return tuple(sidecars)


def host_name(name: str) -> str:
    """The name under which others reach a sidecar."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")


def _read_image(value: Any, field: str) -> Image:
    text = read_text(value, 4096, field)
    try:
        return read_image(text)
    except ValueError as error:
        raise InvalidJob(str(error), field=field) from None


def _read_arguments(value: Any, field: str) -> tuple[str, ...]:
    return read_argv(value, field) if value != [] else ()


def _read_workdir(value: Any, field: str) -> str:
    path = read_text(value, MAX_PATH, field)
    is_plain = path.startswith("/") and posixpath.normpath(path) == path and path != "/"
    if not is_plain or path.startswith("//"):
        raise InvalidJob("an absolute path, without . and ..", field=field)
    if path != WORK and f"{path}/".startswith(f"{FOLDER}/"):
        raise InvalidJob(f"{FOLDER} is taken", field=field)
    return path


def _read_registry(value: Any, field: str) -> tuple[str, str]:
    read_object(value, ("username", "password"), field, "a registry")
    for key in ("username", "password"):
        if not read_text(value.get(key), 64 << 10, f"{field}.{key}"):
            raise InvalidJob("may not be empty", field=f"{field}.{key}")
    return value["username"], value["password"]


def _read_probe(value: Any, field: str) -> Probe:
    read_object(value, ("path", "port", "timeout_seconds"), field, "a probe")
    path = read_text(value.get("path"), MAX_PATH, f"{field}.path")
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise InvalidJob("the path of a URL, from its first /", field=f"{field}.path")
    port = value.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise InvalidJob("a number from 1 to 65535", field=f"{field}.port")
    seconds = value.get("timeout_seconds", PROBE_SECONDS)
    return Probe(path, port, read_seconds(seconds, f"{field}.timeout_seconds"))


# -- What all of them share ------------------------------------------------------------------------


def _read_networks(value: Any, field: str) -> tuple[str, ...]:
    for index, name in enumerate(read_list(value, MAX_NETWORKS, field)):
        where = f"{field}.{index}"
        if not _NETWORK.fullmatch(read_text(name, 128, where)) or name.lower() in _NO_NETWORKS:
            raise InvalidJob("the name of a network of the engine", field=where)
    if len(set(value)) < len(value):
        raise InvalidJob("each network once", field=field)
    return tuple(value)


def _read_limits(value: Any, field: str) -> tuple[float | None, int | None]:
    read_object(value, ("cpus", "memory"), field, "the limits")
    cpus = _read_cpus(value["cpus"], f"{field}.cpus") if "cpus" in value else None
    memory = None
    if "memory" in value:
        memory = read_size(value["memory"], f"{field}.memory", MIN_MEMORY)
    return cpus, memory


def _read_cpus(value: Any, field: str) -> float:
    is_text = isinstance(value, str) and _CPUS.fullmatch(value) and value not in ("", ".")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_text or is_number) or not 0.01 <= float(value) <= MAX_CPUS:
        raise InvalidJob('a number of processors such as ".5"', field=field)
    return float(value)
