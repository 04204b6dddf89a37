"""Kind `container` on a real engine: what runs, in what surroundings, and what is told of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobs.executors import RESULT_BYTES, container, container_engine, container_run
from tests import engines
from tests.engines import IMAGE
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.container_work import SECONDS, once, outcome_of, output_of, running, until

pytestmark = [pytest.mark.usefixtures("engine"), once]


# -- What runs -------------------------------------------------------------------------------------


def test_a_script_is_run_by_the_shell_of_the_image():
    recorder = Recorder()
    run = "echo one; echo two >&2; printf three"
    outcome = outcome_of(recorder, run=run)
    assert (outcome.ok, outcome.result) == (True, {"exit_code": 0})
    assert (recorder.text("stdout"), recorder.text("stderr")) == ("one\nthree", "two\n")


def test_a_script_may_say_what_runs_it():
    assert output_of("#!/bin/cat\nall of it\n") == "#!/bin/cat\nall of it\n"


def test_arguments_are_passed_on_as_they_are():
    recorder = Recorder()
    arguments = ["a b", "$HOME", "*", "ä", ""]
    assert outcome_of(recorder, entrypoint=["printf", "%s|"], cmd=arguments).ok
    assert recorder.text("stdout") == "a b|$HOME|*|ä||"
    recorder = Recorder()
    assert outcome_of(recorder, cmd=["echo", "by itself"]).ok
    assert recorder.text("stdout") == "by itself\n"


def test_an_entry_point_gets_the_script():
    assert output_of("some text\n", entrypoint=["cat"]) == "some text\n"


def test_the_environment_is_that_of_the_job():
    assignment = make_assignment(
        {
            "image": IMAGE,
            "run": "env; cat /proc/1/cmdline",
            "env": {"MINE": "a=b c", "CANARY": "seen in the environment only"},
            "aliases": {"T_OUT": "JOB_OUTPUT", "T_PROGRESS": "JOB_PROGRESS"},
        }
    )
    recorder = Recorder()
    assert in_loop(container.run(assignment, recorder), SECONDS).ok
    lines = recorder.text("stdout").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found["MINE"] == "a=b c"
    assert found["JOB_ID"] == found["IDEMPOTENCY_KEY"] == assignment.id
    assert (found["JOB_FENCE"], found["JOB_ATTEMPT"]) == ("7", "2")
    assert found["T_OUT"] == found["JOB_OUTPUT"] == "/yardmaster/output"
    assert found["T_PROGRESS"] == found["JOB_PROGRESS"] == "/yardmaster/progress"
    assert not [name for name in found if name.startswith("YARDMASTER")]


def test_files_lie_where_it_works_to_read():
    text = output_of("pwd; cat a.txt; stat -c %a a.txt", files={"a.txt": "ä\n"})
    assert text == "/yardmaster/work\nä\n444\n"
    text = output_of("pwd; ls", files={"b": ""}, workdir="/srv/deep/er")
    assert text == "/srv/deep/er\nb\n"
    assert output_of("pwd", workdir="/tmp") == "/tmp\n"
    assert output_of("pwd") == "/\n"


def test_a_container_may_be_silent_for_longer_than_a_call_may_take(engine, monkeypatch):
    client = container_engine.connect(engine.address, 6.0)
    monkeypatch.setattr(container_engine, "_client", lambda address: client)
    try:
        assert output_of("sleep 8; echo done") == "done\n"
        assert output_of("exec >/dev/null 2>&1; sleep 8") == ""
    finally:
        client.close()


def test_a_program_that_is_not_there_fails_the_attempt():
    outcome = outcome_of(entrypoint=["/no/such/program"])
    assert not outcome.ok
    assert "no such file" in outcome.error.lower()


# -- What is told of it ----------------------------------------------------------------------------


def test_what_it_writes_to_its_output_file_is_its_result():
    outcome = outcome_of(run="printf 'a\\0ä\\n\\377' > $JOB_OUTPUT; echo printed")
    assert outcome.result == {"exit_code": 0, "output": "aä\n�"}


@pytest.mark.parametrize(
    "run", ["rm $JOB_OUTPUT", "ln -sf /etc/passwd $JOB_OUTPUT", "rm $JOB_OUTPUT; mkdir $JOB_OUTPUT"]
)
def test_without_an_output_file_there_is_none_in_the_result(run):
    assert outcome_of(run=run).result == {"exit_code": 0}


def test_output_is_cut_to_the_largest_result(request):
    token = RESULT_BYTES.set(1000)
    request.addfinalizer(lambda: RESULT_BYTES.reset(token))
    recorder = Recorder()
    outcome = outcome_of(recorder, run="yes | head -c 300000 > $JOB_OUTPUT")
    assert 400 <= len(outcome.result["output"]) <= 940
    assert "of 300000 bytes of output the first" in recorder.text("log")


def test_progress_is_told_while_it_runs(monkeypatch):
    monkeypatch.setattr(container_run, "PROGRESS_SECONDS", 0.05)

    async def story() -> None:
        recorder = Recorder()
        run = (
            "printf 40 > $JOB_PROGRESS; echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done;"
            "printf 250 > $JOB_PROGRESS; sleep 30"
        )
        async with running(recorder, run=f"touch /tmp/go; {run}", grace_seconds=0) as (task, _):
            await until(lambda: recorder.percents[-1:] == [100.0])
            task.cancel()
            await asyncio.wait([task])
        assert set(recorder.percents) <= {40.0, 100.0}

    in_loop(story(), SECONDS)


def test_output_arrives_while_it_runs():
    async def story() -> None:
        recorder = Recorder()
        began_at = time.monotonic()
        async with running(recorder, run="echo ready; exec sleep 60", grace_seconds=0) as (task, _):
            assert time.monotonic() - began_at < 50
            task.cancel()
            await asyncio.wait([task])

    in_loop(story(), SECONDS)


def test_a_failure_shows_the_exit_code_and_the_last_lines():
    recorder = Recorder()
    outcome = outcome_of(recorder, run="seq 1 15; echo last >&2; sleep 0.2; exit 7")
    assert (outcome.ok, outcome.error_type) == (False, "ExitCode")
    assert (outcome.result, outcome.is_permanent) == ({"exit_code": 7}, False)
    assert outcome.error.startswith("exit code 7: 7\n8\n")
    assert outcome.error.endswith("\n15\nlast")
    assert outcome_of(run="exit 3").error == "exit code 3"


# -- Before and after ------------------------------------------------------------------------------


def test_steps_run_in_order_with_the_mounts_of_the_job():
    recorder = Recorder()
    outcome = outcome_of(
        recorder,
        run="cat /shared/log; echo main >> /shared/log; echo of main > $JOB_OUTPUT",
        mounts=[{"type": "volume", "target": "/shared"}],
        pre=[
            {
                "name": "first",
                "run": "echo one $A > /shared/log; echo x > $JOB_OUTPUT",
                "env": {"A": "a"},
            },
            {"image": IMAGE, "cmd": ["sh", "-c", "echo two >> /shared/log"]},
        ],
        post=[{"run": "cat /shared/log; cat $JOB_OUTPUT; pwd", "files": {"x": ""}}],
    )
    assert recorder.text("stdout") == "one a\ntwo\n" * 2 + "main\n/yardmaster/work\n"
    assert outcome.result == {"exit_code": 0, "output": "of main\n"}


@pytest.mark.parametrize(
    ("codes", "error", "printed"),
    [
        ((3, 0, 0), "pre 0 (first): exit code 3: a", "a\n"),
        ((0, 4, 0), "exit code 4: b", "a\nb\n"),
        ((0, 0, 5), "post 0: exit code 5: c", "a\nb\nc\n"),
    ],
)
def test_the_first_failure_is_the_end(codes, error, printed):
    recorder = Recorder()
    outcome = outcome_of(
        recorder,
        pre=[{"name": "first", "run": f"echo a; exit {codes[0]}"}],
        run=f"echo b; exit {codes[1]}",
        post=[{"run": f"echo c; exit {codes[2]}"}],
    )
    assert (outcome.ok, outcome.error) == (False, error)
    assert recorder.text("stdout") == printed


def test_a_step_has_a_time_of_its_own():
    outcome = in_loop(
        container.run(
            make_assignment(
                {
                    "image": IMAGE,
                    "pre": [{"name": "slow", "run": "sleep 300", "timeout_seconds": 1.5}],
                },
                grace_seconds=0.1,
            ),
            Recorder(),
        ),
        SECONDS,
    )
    assert (outcome.ok, outcome.error_type) == (False, "Timeout")
    assert outcome.error == "pre 0 (slow): did not end within 1.5 s"


# -- Limits ----------------------------------------------------------------------------------------


def _limit(old: str, new: str) -> str:
    """Read a limit inside, from either version of control groups."""
    return f"cat /sys/fs/cgroup/{new} 2>/dev/null || cat /sys/fs/cgroup/{old}"


def test_limits_are_those_of_the_containers_group():
    old = "memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "pids/pids.max"
    run = "; ".join(map(_limit, old, ("memory.max", "cpu.max", "pids.max")))
    text = output_of(run, limits={"cpus": ".5", "memory": "64m"})
    memory, quota, pids = text.splitlines()
    assert (int(memory), quota.split()[0], int(pids)) == (64 << 20, "50000", 512)


def test_memory_is_no_larger_for_being_swapped(engine):
    async def story() -> None:
        fields = {"run": "echo ready; sleep 60", "limits": {"memory": "64m"}}
        async with running(Recorder(), grace_seconds=0, **fields) as (task, _):
            [one] = engine.containers()
            config = engine.api.inspect_container(one["Id"])["HostConfig"]
            assert (config["Memory"], config["MemorySwap"]) == (64 << 20, 64 << 20)
            task.cancel()
            await asyncio.wait([task])

    in_loop(story(), SECONDS)


def test_a_program_that_takes_too_much_memory_is_killed():
    outcome = outcome_of(entrypoint=["tail", "/dev/zero"], limits={"memory": "20m"})
    assert (outcome.ok, outcome.result) == (False, {"exit_code": 137})


# -- As few rights as it can have ------------------------------------------------------------------


def test_a_container_has_no_capabilities_and_gains_none():
    text = output_of("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    status = dict(line.split(":\t") for line in text.splitlines())
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_container_has_no_network_unless_it_is_asked_for():
    assert output_of("ls /sys/class/net") == "lo\n"


def test_a_container_sees_none_of_the_host(engine):
    text = output_of(f"ls /dev; ps; mount; ls {engine.top} 2>&1 || true")
    assert "vda\n" not in text
    assert "engine.sock" not in text
    # Its own processes: the shell and what the shell runs.
    assert len(output_of("ps").splitlines()) == 3


def test_an_asked_for_network_is_joined(engine):
    for name in ("ym-one", "ym-two"):
        engine.api.create_network(name, driver="bridge", internal=True)
    try:
        text = output_of("ls /sys/class/net | wc -l", networks=["ym-one", "ym-two"])
        assert text.strip() == "3"
    finally:
        for name in ("ym-one", "ym-two"):
            engine.api.remove_network(name)
    outcome = outcome_of(run="true", networks=["ym-none"])
    assert (outcome.ok, outcome.error_type) == (False, "EngineError")


# -- Mounts ----------------------------------------------------------------------------------------


def test_a_tmpfs_has_its_size_and_mode():
    mount = {"type": "tmpfs", "target": "/t", "options": {"size": "1m", "mode": "0700"}}
    run = "stat -c %a /t; dd if=/dev/zero of=/t/x bs=1k count=2000 2>/dev/null; stat -c %s /t/x"
    assert output_of(run, mounts=[mount]).split() == ["700", str(1 << 20)]


@pytest.mark.parametrize(
    ("word", "asked", "is_writable"), [("", False, True), (":ro", False, False), ("", True, False)]
)
def test_a_directory_is_mounted_as_the_host_gives_it(settings, tmp_path, word, asked, is_writable):
    tmp_path.chmod(0o777)
    (tmp_path / "in").write_text("in\n")
    settings.CONTAINER_BIND_MOUNTS = [f"{tmp_path}{word}"]
    mount = {"type": "bind", "source": str(tmp_path), "target": "/m"}
    mount["options"] = {"readonly": asked}
    text = output_of("cat /m/in; echo out > /m/out 2>/dev/null || echo closed", mounts=[mount])
    assert text == ("in\n" if is_writable else "in\nclosed\n")
    assert (tmp_path / "out").exists() is is_writable


@pytest.mark.parametrize("allowed", [[], ["{top}/other"], ["{top}/a/b"], ["{top}"]])
def test_other_directories_are_not_mounted(settings, tmp_path, allowed):
    (tmp_path / "a").mkdir()
    settings.CONTAINER_BIND_MOUNTS = [word.format(top=tmp_path) for word in allowed]
    mount = {"type": "bind", "source": str(tmp_path / "a"), "target": "/m"}
    outcome = outcome_of(run="true", mounts=[mount])
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "Refused", True)


def test_the_socket_of_the_engine_is_never_mounted(settings, engine, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(engine.top)
    for path in (engine.top / "engine.sock", engine.top, engine.top.parent, link):
        settings.CONTAINER_BIND_MOUNTS = [str(path)]
        mount = {"type": "bind", "source": str(path), "target": "/m"}
        outcome = outcome_of(run="true", mounts=[mount])
        assert (outcome.error_type, outcome.is_permanent) == ("Refused", True)
        assert "socket of the engine" in outcome.error


# -- What the node allows --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["image", "pre", "post", "sidecars"])
def test_only_listed_images_are_run(where):
    other = "docker.io/library/other:1"
    payload = {where: other} if where == "image" else {where: [{"name": "x", "image": other}]}
    outcome = outcome_of(run="true", **payload)
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "Refused", True)
    assert outcome.error.startswith(f"image {other} is not allowed here")


def test_without_an_engine_the_kind_is_off(settings):
    settings.CONTAINER_ENGINE = ""
    outcome = outcome_of(run="true")
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "Misconfigured", True)


def test_an_engine_that_does_not_answer_may_answer_later(settings, tmp_path):
    settings.CONTAINER_ENGINE = f"unix://{tmp_path}/nobody.sock"
    outcome = outcome_of(run="true")
    assert (outcome.ok, outcome.error_type) == (False, "EngineUnavailable")
    assert not outcome.is_permanent


def test_a_payload_that_is_none_is_refused():
    outcome = in_loop(container.run(make_assignment({"image": "-"}), Recorder()))
    assert (outcome.error_type, outcome.is_permanent) == ("InvalidJob", True)
    assert outcome.error.startswith("payload.image: ")


# -- Sidecars --------------------------------------------------------------------------------------


def web(name: str = "Web one", **fields: object) -> dict[str, object]:
    return {
        "name": name,
        "image": IMAGE,
        "run": "sleep 0.5; exec httpd -f -p 8080",
        "files": {"index.html": f"from {name}\n"},
        "probe": {"path": "/index.html", "port": 8080},
        **fields,
    }


def test_sidecars_are_ready_before_anything_else_runs():
    recorder = Recorder()
    get = "wget -q -O - http://{}:8080/index.html"
    second = web("Two", run=f"{get.format('web-one')} > /tmp/x && echo seen; exec httpd -f -p 8080")
    outcome = outcome_of(
        recorder,
        pre=[{"run": get.format("web-one")}],
        run=get.format("two"),
        post=[{"run": get.format("web-one")}],
        sidecars=[web(), second],
    )
    assert outcome.ok, outcome
    assert recorder.text("stdout") == "from Web one\nfrom Two\nfrom Web one\n"
    assert "[Two] seen" in recorder.text("log")


def test_sidecars_open_no_way_out():
    text = output_of("ip route", sidecars=[web()])
    assert "default" not in text


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"run": "echo up; exec sleep 60"}, "sidecar Web one: probe timed out after 1.5 s"),
        ({"run": "echo oh no; exit 1"}, "sidecar Web one: it ended before it was ready: oh no"),
        ({"files": {}}, "sidecar Web one: probe timed out after 1.5 s"),
    ],
)
def test_a_sidecar_that_is_never_ready_fails_the_attempt(fields, error):
    recorder = Recorder()
    seconds = 60 if "oh no" in error else 1.5
    probe = {"path": "/index.html", "port": 8080, "timeout_seconds": seconds}
    outcome = outcome_of(recorder, run="echo main", sidecars=[web(probe=probe, **fields)])
    assert (outcome.ok, outcome.error_type) == (False, "ProbeFailed")
    assert outcome.error.startswith(error)
    assert recorder.text("stdout") == ""


# -- Pulls -----------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_had_fails_the_attempt(settings):
    settings.CONTAINER_IMAGES = ["localhost:1/*"]
    outcome = outcome_of(image="localhost:1/none", run="true")
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "PullFailed", False)
    assert outcome.error.startswith("image localhost:1/none:latest: ")


# -- The engine of the tests -----------------------------------------------------------------------


def test_without_an_engine_the_tests_are_skipped_or_fail(monkeypatch):
    monkeypatch.setattr(engines, "PROGRAMS", ("no-such-program",))
    monkeypatch.delenv(engines.REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed: no-such-program"):
        engines.podman().__enter__()
    monkeypatch.setenv(engines.REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="not installed: no-such-program"):
        engines.podman().__enter__()
