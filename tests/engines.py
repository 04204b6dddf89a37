"""A real engine for containers: Podman's, started for the tests on a socket of its own."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from jobs.executors import container_engine

REQUIRE = "YARDMASTER_REQUIRE_CONTAINERS"
IMAGE = "localhost/yardmaster-busybox"
PROGRAMS = ("podman", "runc", "busybox")
START_SECONDS = 60.0

# Limits that a machine forbids to raise would keep containers from starting; these only lower them.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[network]
default_subnet_pools = [{{ "base" = "10.{pool}.0.0/16", "size" = 24 }}]
"""
# Registries on this very host need no certificate; passwords are asked for by the tests' own.
REGISTRIES = """
unqualified-search-registries = []
[[registry]]
location = "127.0.0.1"
insecure = true
"""


@dataclass(frozen=True)
class Podman:
    """An engine that runs, with one image. ``top`` is all that it has on disk."""

    top: Path
    api: Any

    @property
    def address(self) -> str:
        return f"unix://{self.top}/engine.sock"

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.containers(all=True)
        return found

    def made(self) -> dict[str, list[str]]:
        """All there is of what attempts make."""
        volumes = self.api.volumes().get("Volumes") or []
        return {
            "containers": [one["Id"] for one in self.containers()],
            "volumes": [one["Name"] for one in volumes],
            "networks": [
                one["Name"] for one in self.api.networks() if one["Name"].startswith("yardmaster-")
            ],
        }

    def clear(self) -> None:
        """Leave nothing to the next test."""
        found = self.made()
        for name in found["containers"]:
            self.api.remove_container(name, v=True, force=True)
        for name in found["volumes"]:
            self.api.remove_volume(name, force=True)
        for name in found["networks"]:
            self.api.remove_network(name)


NOTHING: dict[str, list[str]] = {"containers": [], "volumes": [], "networks": []}


@contextmanager
def podman() -> Iterator[Podman]:
    """Start the engine; without one the test is skipped, or fails where one is required."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        _do_without(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        _do_without("only root can start it with networks and limits")
    with tempfile.TemporaryDirectory(prefix="ym-podman-", ignore_cleanup_errors=True) as name:
        top = Path(name)
        # Other engines of this host may be making networks too.
        configuration = CONFIGURATION.format(pool=100 + os.getpid() % 100)
        (top / "containers.conf").write_text(configuration)
        (top / "registries.conf").write_text(REGISTRIES)
        environment = {
            **os.environ,
            "CONTAINERS_CONF": str(top / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(top / "registries.conf"),
            "REGISTRY_AUTH_FILE": str(top / "no-auth.json"),
        }
        program = _program(top)
        log = (top / "log").open("wb")
        service = subprocess.Popen(
            [*program, "system", "service", "--time", "0", f"unix://{top}/engine.sock"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        try:
            engine = Podman(top, _answering(service, top))
            engine.api.import_image_from_data(root_file_system(), repository=IMAGE, tag="latest")
            _try_it(engine)
            yield engine
            engine.api.close()
        finally:
            service.terminate()
            service.wait()
            subprocess.run([*program, "rm", "-af", "-t", "0"], env=environment, capture_output=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Bridges and rules of networks are the host's: two engines would give theirs the same names."""
    with Path(tempfile.gettempdir(), "yardmaster-engine.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def forget_clients() -> None:
    """Close the executor's connections, which would else live as long as this process."""
    for one in container_engine._clients.values():
        one.close()
    container_engine._clients.clear()


def _program(top: Path) -> list[str]:
    return [
        "podman",
        *("--root", f"{top}/root", "--runroot", f"{top}/run", "--tmpdir", f"{top}/tmp"),
        *("--network-config-dir", f"{top}/networks", "--storage-driver", "vfs"),
    ]


def _answering(service: subprocess.Popen[bytes], top: Path) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(f"{top}/engine.sock")
                break
            except OSError as error:
                if service.poll() is not None or time.monotonic() > deadline:
                    _do_without(f"{error}: {(top / 'log').read_text()[-500:]}")
        time.sleep(0.05)
    return docker.APIClient(f"unix://{top}/engine.sock", version="auto", timeout=60)


def _try_it(engine: Podman) -> None:
    """Some machines let nobody start a container, which only trying tells."""
    try:
        made = engine.api.create_container(IMAGE, ["true"], host_config={"NetworkMode": "none"})
        engine.api.start(made["Id"])
        assert engine.api.wait(made["Id"])["StatusCode"] == 0
        engine.api.remove_container(made["Id"], force=True)
    except docker.errors.DockerException as error:
        _do_without(str(error))


def _do_without(why: str) -> None:
    text = f"no engine for containers can run here: {why}"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(text)
    pytest.skip(text)


def root_file_system(name: str = "") -> bytes:
    """An archive with nothing but busybox, under all of its names, and `/etc/name`."""
    found = shutil.which("busybox")
    assert found is not None
    names = subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("srv", 0o755)):
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(found, "bin/busybox")
        for program in {*names.split()} - {"busybox"}:
            entry = tarfile.TarInfo(f"bin/{program}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        entry = tarfile.TarInfo("etc/name")
        entry.size = len(name.encode())
        tar.addfile(entry, io.BytesIO(name.encode()))
    return buffer.getvalue()
