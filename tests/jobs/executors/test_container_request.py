"""Payloads of kind `container`: what is read out of them, and what is refused, by field."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobs.errors import InvalidJob
from jobs.executors.container_images import is_allowed, read_image
from jobs.executors.container_mounts import Mount
from jobs.executors.container_request import read, validate

DIGEST = "sha256:" + "a" * 64


def refused(**fields: object) -> str | None:
    with pytest.raises(InvalidJob) as error:
        validate({"image": "busybox", **fields})
    return error.value.field


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "payload"),
        ([], "payload"),
        ({}, "payload.image"),
        ({"image": "busybox", "privileged": True}, "payload.privileged"),
        ({"image": "busybox", "user": "0"}, "payload.user"),
        ({"image": "busybox", "name": "x"}, "payload.name"),
        ({"image": "busybox", "timeout_seconds": 1}, "payload.timeout_seconds"),
        ({"image": "busybox", "probe": {}}, "payload.probe"),
    ],
)
def test_unknown_keys_and_a_missing_image_are_refused(payload, field):
    with pytest.raises(InvalidJob) as error:
        validate(payload)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(
            ({"image": image}, "payload.image")
            for image in (
                *("", 5, "Busybox", "a b", "-a", "busybox:", "busybox@", "a//b", "a/../b"),
                *(f"busybox@{DIGEST}0", "busybox:" + "t" * 129, "http://x/y", "a\n", "a" * 600),
            )
        ),
        ({"run": ""}, "payload.run"),
        ({"run": " \n"}, "payload.run"),
        ({"run": "a\0"}, "payload.run"),
        ({"run": "#" * ((256 << 10) + 1)}, "payload.run"),
        ({"cmd": "ls"}, "payload.cmd"),
        ({"cmd": ["ls", 1]}, "payload.cmd.1"),
        ({"cmd": ["ls"] * 1001}, "payload.cmd"),
        ({"entrypoint": [""]}, "payload.entrypoint"),
        ({"entrypoint": {}}, "payload.entrypoint"),
        ({"env": {"JOB_ID": "x"}}, "payload.env.JOB_ID"),
        ({"env": {"IDEMPOTENCY_KEY": "x"}}, "payload.env.IDEMPOTENCY_KEY"),
        ({"env": {"A": 1}}, "payload.env.A"),
        ({"files": {"../x": ""}}, "payload.files.../x"),
        ({"files": {"x": 1}}, "payload.files.x"),
        ({"aliases": {"A": "PATH"}}, "payload.aliases.A"),
        ({"aliases": {"JOB_X": "JOB_OUTPUT"}}, "payload.aliases.JOB_X"),
        ({"aliases": {"A": "JOB_OUTPUT"}, "env": {"A": ""}}, "payload.aliases.A"),
        ({"workdir": "srv"}, "payload.workdir"),
        ({"workdir": "/"}, "payload.workdir"),
        ({"workdir": "//srv"}, "payload.workdir"),
        ({"workdir": "/srv/../etc"}, "payload.workdir"),
        ({"workdir": "/" + "a" * 256}, "payload.workdir"),
        ({"workdir": "/yardmaster"}, "payload.workdir"),
        ({"workdir": "/yardmaster/x"}, "payload.workdir"),
        ({"registry": "x"}, "payload.registry"),
        ({"registry": {"username": "x"}}, "payload.registry.password"),
        ({"registry": {"username": "", "password": "x"}}, "payload.registry.username"),
        ({"registry": {"username": "a", "password": "b", "host": "c"}}, "payload.registry.host"),
        ({"limits": []}, "payload.limits"),
        ({"limits": {"cpu": "1"}}, "payload.limits.cpu"),
        *(
            ({"limits": {"cpus": cpus}}, "payload.limits.cpus")
            for cpus in ("", ".", "x", "0", "-1", "1e3", "nan", True, None, 0, 5000, float("nan"))
        ),
        *(
            ({"limits": {"memory": memory}}, "payload.limits.memory")
            for memory in ("", "m", "1", "5m", "-200m", "200x", True, None, 1 << 60, "9" * 20)
        ),
        ({"networks": "a"}, "payload.networks"),
        ({"networks": ["a"] * 11}, "payload.networks"),
        ({"networks": ["a", "a"]}, "payload.networks"),
        *(
            ({"networks": ["a", name]}, "payload.networks.1")
            for name in (
                *("host", "HOST", "none", "container:x", "container", "ns:/proc/1/ns/net", "ns"),
                *("pasta", "slirp4netns", "private", "pod", "", "a/b", "a b", 5),
            )
        ),
        ({"gpus": 1}, "payload.gpus"),
        *(
            ({"gpus": gpus}, "payload.gpus")
            for gpus in (
                "",
                "x",
                "0",
                "-1",
                "9999",
                "count=1,count=2",
                '"',
                "count=1,device=0",
                "a=",
            )
        ),
        ({"pre": {}}, "payload.pre"),
        ({"pre": [{}] * 21}, "payload.pre"),
        ({"pre": ["x"]}, "payload.pre.0"),
        ({"post": [{}, {"mounts": []}]}, "payload.post.1.mounts"),
        ({"post": [{"probe": {}}]}, "payload.post.0.probe"),
        ({"pre": [{"timeout_seconds": "1"}]}, "payload.pre.0.timeout_seconds"),
        ({"pre": [{"name": " "}]}, "payload.pre.0.name"),
        ({"sidecars": [{"image": "a"}]}, "payload.sidecars.0.name"),
        ({"sidecars": [{"name": "a"}]}, "payload.sidecars.0.image"),
        ({"sidecars": [{"name": "--", "image": "a"}]}, "payload.sidecars.0.name"),
        (
            {"sidecars": [{"name": "A b", "image": "a"}, {"name": "a-B", "image": "a"}]},
            "payload.sidecars.1.name",
        ),
        (
            {"sidecars": [{"name": "a", "image": "a", "timeout_seconds": 1}]},
            "payload.sidecars.0.timeout_seconds",
        ),
    ],
)
def test_what_no_node_can_run_is_refused(fields, field):
    assert refused(**fields) == field


@pytest.mark.parametrize(
    ("probe", "field"),
    [
        ([], ""),
        ({"port": 1}, ".path"),
        ({"path": "x", "port": 1}, ".path"),
        ({"path": "/a b", "port": 1}, ".path"),
        ({"path": "/a\r\nX: y", "port": 1}, ".path"),
        ({"path": "/ä", "port": 1}, ".path"),
        ({"path": "/" + "a" * 256, "port": 1}, ".path"),
        ({"path": "/"}, ".port"),
        ({"path": "/", "port": 0}, ".port"),
        ({"path": "/", "port": 65536}, ".port"),
        ({"path": "/", "port": True}, ".port"),
        ({"path": "/", "port": 80, "timeout_seconds": 0}, ".timeout_seconds"),
        ({"path": "/", "port": 80, "host": "x"}, ".host"),
    ],
)
def test_a_probe_is_a_path_and_a_port(probe, field):
    sidecar = {"name": "a", "image": "a", "probe": probe}
    assert refused(sidecars=[sidecar]) == f"payload.sidecars.0.probe{field}"


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        ("x", ""),
        ({}, ".type"),
        ({"type": "nfs", "target": "/a"}, ".type"),
        ({"type": [], "target": "/a"}, ".type"),
        ({"type": "volume"}, ".target"),
        ({"type": "volume", "source": "x", "target": "/a"}, ".source"),
        ({"type": "tmpfs", "source": "x", "target": "/a"}, ".source"),
        ({"type": "bind", "target": "/a"}, ".source"),
        ({"type": "bind", "source": "a", "target": "/a"}, ".source"),
        ({"type": "bind", "source": "/", "target": "/a"}, ".source"),
        ({"type": "bind", "source": "/a/../b", "target": "/a"}, ".source"),
        ({"type": "bind", "source": "/a:b", "target": "/a"}, ".source"),
        ({"type": "bind", "source": "/a", "target": "/a,readonly"}, ".target"),
        ({"type": "volume", "target": "a"}, ".target"),
        ({"type": "volume", "target": "/"}, ".target"),
        ({"type": "volume", "target": "/a/.."}, ".target"),
        ({"type": "volume", "target": "/yardmaster"}, ".target"),
        ({"type": "volume", "target": "/./yardmaster//output/"}, ".target"),
        ({"type": "volume", "target": "/a", "options": {"device": "/etc"}}, ".options.device"),
        ({"type": "volume", "target": "/a", "options": []}, ".options"),
        ({"type": "volume", "target": "/a", "opts": {}}, ".opts"),
        ({"type": "tmpfs", "target": "/a", "options": {"size": "x"}}, ".options.size"),
        ({"type": "tmpfs", "target": "/a", "options": {"mode": "999"}}, ".options.mode"),
        ({"type": "tmpfs", "target": "/a", "options": {"mode": "4755"}}, ".options.mode"),
        (
            {"type": "bind", "source": "/a", "target": "/a", "options": {"readonly": 1}},
            ".options.readonly",
        ),
    ],
)
def test_a_mount_is_of_three_types(mount, field):
    assert refused(mounts=[mount]) == f"payload.mounts.0{field}"


def test_two_things_cannot_be_mounted_at_one_place():
    mounts = [{"type": "volume", "target": "/a"}, {"type": "tmpfs", "target": "/a/"}]
    assert refused(mounts=mounts) == "payload.mounts.1.target"


def test_files_cannot_be_put_into_a_mount():
    mounts = [{"type": "volume", "target": "/srv"}]
    assert refused(mounts=mounts, files={"a": ""}, workdir="/srv/x") == "payload.files"
    step = {"files": {"a": ""}, "workdir": "/srv"}
    assert refused(mounts=mounts, pre=[{}, step]) == "payload.pre.1.files"
    validate({"image": "a", "mounts": mounts, "files": {"a": ""}, "workdir": "/srvx"})


def test_a_payload_is_read_into_programs():
    request = read(
        {
            "image": "registry.example.com:5000/team/tool:1.2",
            "registry": {"username": "u", "password": "p"},
            "limits": {"cpus": ".5", "memory": "200m"},
            "mounts": [
                {"type": "bind", "source": "/a b", "target": "/c", "options": {"readonly": "true"}},
                {"type": "tmpfs", "target": "/t", "options": {"size": "1m", "mode": "1777"}},
            ],
            "pre": [{"name": "one"}, {"image": "busybox"}],
            "networks": ["inner"],
        }
    )
    assert str(request.main.image) == "registry.example.com:5000/team/tool:1.2"
    assert (request.cpus, request.memory) == (0.5, 200 << 20)
    assert request.mounts == (
        Mount("bind", "/a b", "/c", is_read_only=True),
        Mount("tmpfs", None, "/t", size=1 << 20, mode=0o1777),
    )
    # A step without an image has the job's, and may have it as the job may.
    assert [str(one.image) for one in request.pre] == [
        "registry.example.com:5000/team/tool:1.2",
        "docker.io/library/busybox:latest",
    ]
    assert [one.registry for one in request.pre] == [("u", "p"), None]


def test_passwords_show_in_no_message():
    payload = {"image": "a", "registry": {"username": "u", "password": ["canary"]}}
    with pytest.raises(InvalidJob) as error:
        validate(payload)
    assert "canary" not in f"{error.value} {error.value.field}"


@pytest.mark.parametrize(
    ("gpus", "request_"),
    [
        ("all", {"Count": -1}),
        ("2", {"Count": 2}),
        ("count=2", {"Count": 2}),
        ("device=0", {"Count": 0, "DeviceIDs": ["0"]}),
        ('"device=0,GPU-3a"', {"Count": 0, "DeviceIDs": ["0", "GPU-3a"]}),
        (
            'all,"capabilities=compute,utility",driver=nvidia',
            {"Count": -1, "Driver": "nvidia", "Capabilities": [["compute", "gpu", "utility"]]},
        ),
        ("all,options=a=b", {"Count": -1, "Options": {"a": "b"}}),
    ],
)
def test_gpus_are_asked_for_as_docker_does(gpus, request_):
    usual = {"Driver": "", "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    assert read({"image": "a", "gpus": gpus}).gpus == {**usual, **request_}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/tool:1", "docker.io/team/tool:1"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("localhost/tool", "localhost/tool:latest"),
        ("host:5000/a/b:c", "host:5000/a/b:c"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
    ],
)
def test_names_of_images_are_said_in_full(text, meant):
    assert str(read_image(text)) == meant


@pytest.mark.parametrize(
    ("pattern", "allowed", "not_allowed"),
    [
        ("busybox", ["busybox", "docker.io/library/busybox:latest"], ["busybox:1", "a/busybox"]),
        ("busybox:1", ["busybox:1"], ["busybox", "busybox:11", f"busybox:1@{DIGEST}"]),
        ("busybox:*", ["busybox", "busybox:1", f"busybox@{DIGEST}"], ["busyboxx", "a/busybox"]),
        ("team/*", ["team/a", "team/a/b:1"], ["teams/a", "ghcr.io/team/a", "team"]),
        ("ghcr.io/*", ["ghcr.io/a:1", "ghcr.io/a/b"], ["ghcr.io.evil.com/a", "busybox"]),
        ("docker.io/*", ["busybox", "team/a"], ["ghcr.io/a"]),
        (f"busybox@{DIGEST}", [f"busybox@{DIGEST}", f"busybox:2@{DIGEST}"], ["busybox"]),
        ("*", ["busybox", "ghcr.io/a"], []),
    ],
)
def test_patterns_allow_what_they_say(pattern, allowed, not_allowed):
    assert all(is_allowed(read_image(one), [pattern]) for one in allowed)
    assert not any(is_allowed(read_image(one), [pattern]) for one in not_allowed)


def test_without_patterns_no_image_is_allowed():
    assert not is_allowed(read_image("busybox"), [])


def test_reading_a_payload_loads_no_library():
    code = (
        "import sys; from jobs.executors import KINDS;"
        "KINDS['container'].validate({'image': 'a', 'run': 'b', 'gpus': 'all'});"
        "sys.exit('docker' in sys.modules or 'asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
