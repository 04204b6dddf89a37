"""File jobs that are cut off: by a cancel, a kill at any step, a full disk or missing rights."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from jobs.executors import file_drafts, file_roots
from jobs.registry import JobCancelled
from tests.jobs.executors.file_work import FakeWork, attempt, done, drafts, tree, write
from tests.jobs.executors.programs import as_root

MIB = 1 << 20
MEMORY = Path("/dev/shm")


@pytest.fixture
def elsewhere(target: Path) -> Iterator[Path]:
    """A folder on another file system."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == target.stat().st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield Path(path)


# -- Cancelled -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("roots")
@pytest.mark.parametrize(
    ("operation", "to"),
    [("copy", ""), ("archive", "x.zip"), ("archive", "x.tar.gz"), ("compress", "")],
)
def test_a_cancel_is_seen_within_a_chunk_and_leaves_nothing(operation, to, source, target):
    content = os.urandom(10 * MIB)
    write(source / "big", content)
    looks = iter(range(1000))
    work = FakeWork(cancels=lambda: next(looks) >= 5)
    with pytest.raises(JobCancelled):
        attempt(operation, "big", {"root": "out", "path": to}, work=work)
    assert work.looks == 6
    assert tree(target) == {} and tree(source) == {"big": content}


@pytest.mark.usefixtures("roots")
def test_a_cancel_is_seen_while_files_are_compared(source, target):
    content = os.urandom(10 * MIB)
    for folder in (source, target):
        write(folder / "big", content)
    looks = iter(range(1000))
    work = FakeWork(cancels=lambda: next(looks) >= 5)
    with pytest.raises(JobCancelled):
        attempt("move", "big", "", work=work)
    assert work.looks == 6
    assert tree(target) == tree(source) == {"big": content}


def test_a_cancelled_move_to_another_file_system_keeps_the_original(
    source, target, elsewhere, settings
):
    settings.FILE_ROOTS = [f"in={source}", f"out={elsewhere}"]
    content = os.urandom(10 * MIB)
    write(source / "big", content)
    looks = iter(range(1000))
    with pytest.raises(JobCancelled):
        attempt("move", "big", "", work=FakeWork(cancels=lambda: next(looks) >= 5))
    assert (tree(elsewhere), tree(source)) == ({}, {"big": content})


def test_a_move_to_another_file_system_takes_everything_along(source, elsewhere, settings):
    settings.FILE_ROOTS = [f"in={source}", f"out={elsewhere}"]
    for name in ("a", "x/b"):
        write(source / name, os.urandom(3 * MIB), age=86_400)
    before, moment = tree(source), (source / "a").stat().st_mtime_ns
    asked = {"recursive": True, "delete_empty_directories": True}
    assert done("move", "*", "", **asked)["directories"] == 1
    assert (tree(elsewhere), list(source.iterdir())) == (before, [])
    assert (elsewhere / "a").stat().st_mtime_ns == moment


# -- Killed at every step --------------------------------------------------------------------------


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do something in a process of its own that is killed at its n-th step; true if it got there."""
    pid = os.fork()
    if pid == 0:
        try:
            count = 0

            def stepwise(real):
                def call(*args, **kwargs):
                    nonlocal count
                    count += 1
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **kwargs)

                return call

            for name in ("open", "read", "write", "fsync", "unlink", "replace", "mkdir", "rmdir"):
                setattr(os, name, stepwise(getattr(os, name)))
            file_drafts._renameat2 = stepwise(file_drafts._renameat2)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def unpacked(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            found |= {name: opened.read(name) for name in opened.namelist()}
    return found


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("copy", {"to": "sub"}),
        ("move", {"to": "sub"}),
        ("move across", {"to": "sub"}),
        ("archive", {"to": "sub/all.zip"}),
        ("compress", {"to": "sub", "delete_originals": True}),
        ("delete", {"all": True, "delete_empty_directories": True}),
    ],
)
def test_whenever_an_attempt_is_killed_the_next_one_ends_the_job(
    operation, more, source, target, elsewhere, settings
):
    out = elsewhere if operation == "move across" else target
    settings.FILE_ROOTS = [f"in={source}", f"out={out}"]
    content = {"a": os.urandom(MIB + 5), "x/b": b"b" * 1000}
    operation, goes = operation.split()[0], operation not in ("copy", "archive")
    step = 0
    while True:
        step += 1
        for folder in (source, out):
            shutil.rmtree(folder)
            folder.mkdir()
        for name, data in content.items():
            write(source / name, data, age=60)
        job = str(uuid4())
        ask = {"recursive": True, **more}
        was_killed = killed_at(
            step,
            lambda: attempt(operation, "*", work=FakeWork(1, job), **ask),  # noqa: B023
        )
        if operation in ("copy", "move"):
            # At any moment there is each file, whole; what has its name is whole.
            seen = {**tree(source), **{k[4:]: v for k, v in tree(out).items() if "/.ym-" not in k}}
            hidden = [data for name, data in tree(source).items() if ".ym-" in name]
            for name, data in content.items():
                assert seen.get(name) == data or data in hidden, (step, name)
        outcome = attempt(operation, "*", work=FakeWork(2, job), **ask)
        assert outcome.ok, (step, outcome)
        assert drafts(source, out) == [], step
        assert tree(source) == ({} if goes else content), step
        if operation in ("copy", "move"):
            assert tree(out) == {f"sub/{name}": data for name, data in content.items()}, step
        elif operation == "archive":
            assert unpacked(out) == content, step
        elif operation == "compress":
            assert unpacked(out) == {"a": content["a"], "b": content["x/b"]}, step
        if not was_killed:
            break
    assert step > 8


def test_a_single_move_that_an_earlier_attempt_ended_counts_as_done(source, target, settings):
    settings.FILE_ROOTS = [f"in={source}", f"out={target}"]
    write(source / "a", "moved")
    assert done("move", "a", "")["files"] == 1
    assert attempt("move", "a", "", work=FakeWork(1)).error_type == "FileNotFoundError"
    assert done("move", "a", "", work=FakeWork(2))["files"] == 1


def test_drafts_go_with_their_job_or_when_no_attempt_can_be_so_old(
    source, target, settings, monkeypatch
):
    settings.FILE_ROOTS = [f"in={source}", f"out={target}"]
    write(source / "a")
    job = str(uuid4())
    for name in (f"{job}-1-1.part", f"{job}-3-1.part", f"{uuid4()}-1-1.part", f"{job}-1-99.del"):
        write(target / f".ym-{name}", age=30 * 86_400)
    done("copy", "a", "", work=FakeWork(3, job))
    # Its own earlier one is gone; that of the same attempt, of another job, and a file that was not
    # what it was taken for have stayed.
    assert f".ym-{job}-1-1.part" not in tree(target) and len(drafts(target)) == 3
    monkeypatch.setattr(file_drafts, "ABANDONED_SECONDS", -1)
    done("copy", "a", "")
    assert [path.suffix for path in drafts(target)] == [".del"]


# -- No room, no rights ----------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("operation", ["copy", "move", "archive", "compress"])
def test_a_full_disk_is_told_and_may_be_better_later(operation, source, tmp_path, settings):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this host lets nobody mount")
    try:
        settings.FILE_ROOTS = [f"in={source}", f"out={small}"]
        write(source / "a", b"a" * 1000)
        write(source / "b", os.urandom(8 * MIB))
        to = "x.zip" if operation == "archive" else ""
        outcome = attempt(operation, "*", {"root": "out", "path": to})
        assert (outcome.ok, outcome.is_permanent) == (False, False)
        assert "No space left" in outcome.error
        assert outcome.effect_unknown == (operation != "archive")
        assert outcome.result["files"] == (0 if operation == "archive" else 1)
        assert drafts(small) == [] and (source / "b").stat().st_size == 8 * MIB
        (source / "b").write_bytes(b"b")
        assert attempt(operation, "*", {"root": "out", "path": to}, overwrite=True).ok
    finally:
        subprocess.run(["umount", str(small)], check=True)


@as_root
def test_missing_rights_are_permanent_and_stop_nobody_else(settings):
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        source, target = Path(top, "in"), Path(top, "out")
        for name in ("a", "b", "c"):
            write(source / name)
        target.mkdir()
        target.chmod(0o777)
        (source / "b").chmod(0)
        settings.FILE_ROOTS = [f"in={source}", f"out={target}"]
        os.seteuid(65_534)
        try:
            outcome = attempt("copy", "*", "")
            kept = attempt("delete", "*", all=True)
        finally:
            os.seteuid(0)
        assert set(tree(target)) == {"a", "c"}
        assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, True, True)
        assert outcome.error == "b: Permission denied"
        assert (kept.ok, kept.result["files"]) == (False, 0)
        assert "(and 2 more)" in kept.error and set(tree(source)) == {"a", "b", "c"}


@pytest.mark.usefixtures("roots")
def test_a_file_larger_than_a_process_may_write_is_refused_before_it_is_read(source, target):
    with (source / "huge").open("wb") as file:
        file.truncate(1 << 40)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, before[1]))
    try:
        outcome = attempt("copy", "huge", "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (outcome.ok, outcome.is_permanent) == (False, True)
    assert "4 MiB" in outcome.error


@pytest.mark.usefixtures("roots")
def test_a_root_that_is_not_there_may_come_back_and_its_place_is_not_told(source, tmp_path):
    source.rename(tmp_path / "gone")
    outcome = attempt("copy", "a", "x")
    assert (outcome.ok, outcome.is_permanent) == (False, False)
    assert "root in" in outcome.error and str(tmp_path) not in outcome.error


@pytest.mark.usefixtures("roots")
def test_without_renameat2_no_name_is_taken_twice_either(source, target, monkeypatch):
    monkeypatch.setattr(file_drafts, "_renameat2", None)
    write(source / "a", "new")
    done("copy", "a", "")
    write(target / "a", "other")
    assert attempt("copy", "a", "").error_type == "TargetExists"
    assert attempt("move", "a", "").error_type == "TargetExists"
    done("move", "a", {"root": "out", "path": "x", "name": "b"})
    done("delete", "*", all=True)
    assert (tree(source), tree(target)) == ({}, {"a": b"other", "x/b": b"new"})
    assert file_roots.roots()["in"].path == str(source)
