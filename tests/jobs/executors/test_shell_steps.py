"""Kind `shell` as a step: files, what runs before and after, and what a program tells in files."""

from __future__ import annotations

import asyncio

import pytest

from jobs.errors import InvalidJob
from jobs.executors import RESULT_BYTES, shell
from jobs.executors.shell_command import validate
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.programs import as_root, attempt, cancelled, living, output_of, until

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


# -- Payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"files": []}, "payload.files"),
        ({"files": {f"f{n}": "" for n in range(101)}}, "payload.files"),
        ({"files": {"": "x"}}, "payload.files."),
        ({"files": {"..": "x"}}, "payload.files..."),
        ({"files": {"a/b": "x"}}, "payload.files.a/b"),
        ({"files": {"a\0b": "x"}}, "payload.files.a\0b"),
        ({"files": {"a": 1}}, "payload.files.a"),
        ({"files": {"a": "\ud800"}}, "payload.files.a"),
        ({"files": {"a": "x" * (1 << 20), "b": "x"}}, "payload.files"),
        ({"aliases": []}, "payload.aliases"),
        ({"aliases": {"A B": "JOB_OUTPUT"}}, "payload.aliases"),
        ({"aliases": {"JOB_ID": "JOB_OUTPUT"}}, "payload.aliases.JOB_ID"),
        ({"aliases": {"LD_PRELOAD": "JOB_OUTPUT"}}, "payload.aliases.LD_PRELOAD"),
        ({"aliases": {"A": "JOB_ID"}}, "payload.aliases.A"),
        ({"aliases": {"A": ["JOB_OUTPUT"]}}, "payload.aliases.A"),
        ({"aliases": {"A": "JOB_OUTPUT"}, "env": {"A": "x"}}, "payload.aliases.A"),
        ({"pre": {}}, "payload.pre"),
        ({"pre": [{"script": "x"}] * 21}, "payload.pre"),
        ({"pre": ["x"]}, "payload.pre.0"),
        ({"post": [{"script": "x"}, {}]}, "payload.post.1"),
        ({"post": [{"script": "x", "argv": ["x"]}]}, "payload.post.0"),
        ({"post": [{"script": " "}]}, "payload.post.0.script"),
        ({"pre": [{"script": "x", "stdin": ""}]}, "payload.pre.0.stdin"),
        ({"pre": [{"script": "x", "name": ""}]}, "payload.pre.0.name"),
        ({"pre": [{"script": "x", "env": {"LD_X": ""}}]}, "payload.pre.0.env.LD_X"),
        ({"pre": [{"script": "x", "timeout_seconds": 0}]}, "payload.pre.0.timeout_seconds"),
        ({"pre": [{"script": "x", "timeout_seconds": True}]}, "payload.pre.0.timeout_seconds"),
        (
            {"pre": [{"script": "x", "timeout_seconds": float("nan")}]},
            "payload.pre.0.timeout_seconds",
        ),
    ],
)
def test_what_no_node_can_run_is_refused(fields, field):
    with pytest.raises(InvalidJob) as refused:
        validate({"script": "true", **fields})
    assert refused.value.field == field


# -- Files -----------------------------------------------------------------------------------------


def test_files_lie_in_the_directory_of_the_job_to_read():
    text = output_of("cat tool; stat -c %a tool", files={"tool": "a\nb\n", "other": ""})
    assert text == "a\nb\n400\n"


@as_root
def test_files_belong_to_the_user_of_the_program(settings):
    settings.SHELL_USER = "nobody"
    assert output_of("id -un; stat -c %U x", files={"x": ""}).split() == ["nobody", "nobody"]


# -- Before and after ------------------------------------------------------------------------------


def test_steps_run_in_order_in_one_directory():
    recorder = Recorder()
    outcome = in_loop(
        attempt(
            recorder,
            script="cat log; echo main >> log; echo of main > $JOB_OUTPUT",
            env={"A": "main"},
            pre=[
                {"script": "echo one $A > log; echo x > $JOB_OUTPUT", "env": {"A": "pre"}},
                {"argv": ["/bin/sh", "-c", "echo two ${A-none} >> log"]},
            ],
            post=[{"script": "cat log; cat $JOB_OUTPUT; echo of post > $JOB_OUTPUT"}],
        )
    )
    assert recorder.text("stdout") == "one pre\ntwo none\n" + "one pre\ntwo none\nmain\n"
    assert outcome.result == {"exit_code": 0, "output": "of main\n"}


@pytest.mark.parametrize(
    ("pre", "script", "post", "error", "printed"),
    [
        ("echo a; exit 3", "echo b", "echo c", "pre 0 (first): exit code 3", "a\n"),
        ("echo a", "echo b; exit 4", "echo c", "exit code 4", "a\nb\n"),
        ("echo a", "echo b", "echo c; exit 5", "post 0 (last): exit code 5", "a\nb\nc\n"),
    ],
)
def test_the_first_failure_is_the_end(pre, script, post, error, printed):
    recorder = Recorder()
    outcome = in_loop(
        attempt(
            recorder,
            pre=[{"name": "first", "script": pre}],
            script=script,
            post=[{"name": "last", "script": post}],
        )
    )
    assert (outcome.ok, outcome.error, outcome.error_type) == (False, error, "ExitCode")
    assert recorder.text("stdout") == printed


def test_a_step_has_a_time_of_its_own(marker):
    outcome = in_loop(
        attempt(
            pre=[{"name": "slow", "script": f"sleep {marker}", "timeout_seconds": 0.2}],
            script="true",
        )
    )
    assert (outcome.ok, outcome.error_type) == (False, "Timeout")
    assert outcome.error == "pre 0 (slow): did not end within 0.2 s"
    assert living(marker) == []


def test_a_cancelled_step_ends_with_all_that_it_started(marker):
    async def story() -> None:
        recorder = Recorder()
        payload = {
            "pre": [{"script": f"sleep {marker} & echo ready; wait"}],
            "script": "echo main",
        }
        task = asyncio.create_task(shell.run(make_assignment(payload), recorder))
        await until(lambda: "ready" in recorder.text("stdout"))
        await cancelled(task)
        assert living(marker) == []
        assert "main" not in recorder.text("stdout")

    in_loop(story())


# -- What a program tells --------------------------------------------------------------------------


def test_what_a_program_writes_to_its_output_file_is_its_result():
    outcome = in_loop(attempt(script="printf 'a\\0ä\\n\\377' > $JOB_OUTPUT"))
    assert outcome.result == {"exit_code": 0, "output": "aä\n�"}


def test_aliases_name_the_same_files():
    outcome = in_loop(
        attempt(
            script="printf a > $X_OUT; printf b >> $JOB_OUTPUT; test $P = $JOB_PROGRESS",
            aliases={"X_OUT": "JOB_OUTPUT", "P": "JOB_PROGRESS"},
        )
    )
    assert outcome.result == {"exit_code": 0, "output": "ab"}


@pytest.mark.parametrize(
    "script",
    [
        "true",
        "printf '\\0' > $JOB_OUTPUT",
        "rm -f $JOB_OUTPUT || true",
        "(rm $JOB_OUTPUT && mkfifo $JOB_OUTPUT) || true",
        "(rm $JOB_OUTPUT && ln -s /etc/passwd $JOB_OUTPUT) || true",
    ],
)
def test_without_output_there_is_none_in_the_result(script):
    assert in_loop(attempt(script=script)).result == {"exit_code": 0}


@pytest.mark.parametrize("piece", ["x", "ä", '"', "€😀"])
def test_output_is_cut_to_the_largest_result(piece, request):
    token = RESULT_BYTES.set(1000)
    request.addfinalizer(lambda: RESULT_BYTES.reset(token))
    recorder = Recorder()
    script = f"yes '{piece}' | head -n 3000 | tr -d '\\n' > $JOB_OUTPUT"
    outcome = in_loop(attempt(recorder, script=script))
    kept = outcome.result["output"].rstrip("�")
    assert 450 <= len(kept.encode()) <= 940
    assert set(kept) <= set(piece)
    assert "are kept" in recorder.text("log")


@pytest.mark.parametrize(
    ("written", "percents"),
    [("42.5", [42.5]), ("7%", [7.0]), ("1e9", [100.0]), ("-3", [0.0]), ("nan", []), ("soon", [])],
)
def test_progress_is_told_while_it_runs(monkeypatch, written, percents):
    monkeypatch.setattr(shell, "PROGRESS_SECONDS", 0.02)
    recorder = Recorder()
    script = f"echo {written} > $JOB_PROGRESS; sleep 0.3"
    assert in_loop(attempt(recorder, script=script)).ok
    assert recorder.percents == percents
