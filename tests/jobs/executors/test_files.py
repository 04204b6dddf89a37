"""What `files` jobs do: every operation, with real files."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from jobs.executors.file_roots import PathRefused, locate, read_roots
from tests.jobs.executors.file_work import FakeWork, attempt, done, tree, write

pytestmark = pytest.mark.usefixtures("roots")
DAY = 86_400


def test_a_copy_has_the_contents_times_and_rights_of_the_original(source, target):
    original = write(source / "a.csv", os.urandom(3 << 20), age=DAY)
    original.chmod(0o4640)
    result = done("copy", "a.csv", "2026/01")
    copied = target / "2026/01/a.csv"
    assert copied.read_bytes() == original.read_bytes()
    assert copied.stat().st_mtime_ns == original.stat().st_mtime_ns
    assert stat.S_IMODE(copied.stat().st_mode) == 0o640
    assert (result["files"], result["bytes"], result["names"]) == (1, 3 << 20, ["a.csv"])
    assert result["to"] == {"root": "out", "path": "2026/01"}


def test_a_pattern_takes_the_files_of_one_folder_and_no_hidden_ones(source, target):
    for name in ("a.csv", "b.csv", ".c.csv", "d.txt", "sub/e.csv"):
        write(source / name, name)
    assert done("copy", "*.csv", "")["names"] == ["a.csv", "b.csv"]
    assert tree(target) == {"a.csv": b"a.csv", "b.csv": b"b.csv"}
    assert done("copy", "", "hidden", pattern=".*")["names"] == [".c.csv"]


def test_recursion_keeps_the_folders(source, target):
    for name in ("a.csv", "x/b.csv", "x/y/c.csv", "x/y/d.txt"):
        write(source / name, name)
    assert done("copy", "*.csv", "all", recursive=True)["files"] == 3
    assert set(tree(target)) == {"all/a.csv", "all/x/b.csv", "all/x/y/c.csv"}


def test_copying_into_a_folder_below_does_not_copy_the_copies(source, target):
    for name in ("a", "x/b"):
        write(source / name, name)
    for _ in range(2):
        done("copy", "*", {"root": "in", "path": "backup"}, recursive=True)
    assert set(tree(source)) == {"a", "x/b", "backup/a", "backup/x/b"}


def test_a_move_within_a_file_system_keeps_the_file_itself(source, target):
    inode = write(source / "a", "one").stat().st_ino
    write(source / "b", "two")
    assert done("move", "*", "done")["files"] == 2
    assert tree(source) == {}
    assert (target / "done/a").stat().st_ino == inode


def test_one_file_gets_another_name(source, target):
    write(source / "a")
    done("copy", "a", {"root": "out", "path": "x", "name": "b"})
    done("move", "a", {"root": "in", "path": "", "name": "c"})
    assert set(tree(target)) == {"x/b"}
    assert set(tree(source)) == {"c"}


@pytest.mark.parametrize("operation", ["copy", "move"])
def test_what_is_there_is_overwritten_only_where_that_is_asked_for(operation, source, target):
    write(source / "a", "new")
    write(target / "a", "old")
    outcome = attempt(operation, "a", "")
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "TargetExists", True)
    assert tree(source) == {"a": b"new"}
    assert done(operation, "*", "")["skipped"]["reasons"] == {"the target exists": 1}
    assert tree(target) == {"a": b"old"}
    done(operation, "a", "", overwrite=True)
    assert tree(target) == {"a": b"new"}


def test_a_copy_that_is_there_already_counts_as_done(source, target):
    write(source / "a", "same")
    write(target / "a", "same")
    assert done("copy", "a", "")["files"] == 1
    assert done("move", "a", "")["files"] == 1
    assert (tree(source), tree(target)) == ({}, {"a": b"same"})


def test_a_file_is_never_moved_onto_itself(source, tmp_path, settings):
    write(source / "a", "precious")
    (tmp_path / "again").symlink_to(source)
    settings.FILE_ROOTS = [f"in={source}", f"out={tmp_path}/again"]
    for operation in ("copy", "move"):
        for more in ({}, {"overwrite": True}):
            outcome = attempt(operation, "*", "", **more)
            assert (outcome.ok, outcome.error_type) == (False, "PathRefused")
            named = {"root": "out", "path": "", "name": "a"}
            assert attempt(operation, "a", named, **more).error_type == "NotTouched"
    assert (source / "a").read_text() == "precious"


def test_delete_takes_what_is_old_enough(source):
    write(source / "old.log", age=8 * DAY)
    write(source / "young.log", age=6 * DAY)
    write(source / "old.txt", age=8 * DAY)
    result = done("delete", "*.log", older_than_seconds=7 * DAY)
    assert (result["files"], result["names"]) == (1, ["old.log"])
    assert set(tree(source)) == {"young.log", "old.txt"}
    done("delete", "*", all=True)
    assert tree(source) == {}


def test_age_and_size_bound_what_is_taken(source):
    write(source / "small-old", "x" * 10, age=5 * DAY)
    write(source / "large-old", "x" * 1000, age=5 * DAY)
    write(source / "large-new", "x" * 1000, age=DAY)
    names = lambda **more: [f["path"] for f in done("list", "*", **more)["names"]]  # noqa: E731
    assert names(older_than_seconds=2 * DAY) == ["large-old", "small-old"]
    assert names(newer_than_seconds=2 * DAY) == ["large-new"]
    assert names(larger_than_bytes=10) == ["large-new", "large-old"]
    assert names(smaller_than_bytes=1000) == ["small-old"]
    assert names(older_than_seconds=2 * DAY, larger_than_bytes=10) == ["large-old"]


def test_empty_folders_go_with_their_files_and_young_ones_stay(source):
    write(source / "a/b/old", age=8 * DAY)
    write(source / "a/c/old", age=8 * DAY)
    write(source / "a/c/young")
    (source / "made-just-now").mkdir()
    (source / "empty-for-long").mkdir()
    os.utime(source / "empty-for-long", (0, 0))
    asked = {"recursive": True, "older_than_seconds": DAY, "delete_empty_directories": True}
    dry = done("delete", "*", dry_run=True, **asked)
    assert (source / "a/b/old").exists()
    real = done("delete", "*", **asked)
    assert dry["directories"] == real["directories"] == 2
    found = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_dir()}
    assert found == {"a", "a/c", "made-just-now"}


def test_a_list_tells_sizes_and_times_and_changes_nothing(source, settings):
    write(source / "a", "four", age=DAY)
    settings.FILE_ROOTS = [f"in={source}:ro"]
    (entry,) = done("list", "*")["names"]
    assert (entry["path"], entry["bytes"]) == ("a", 4)
    assert abs(entry["modified_at"] - (time.time() - DAY)) < 5


@pytest.mark.parametrize(("name", "form"), [("x.zip", "zip"), ("x.tar.gz", "tar.gz")])
def test_an_archive_holds_the_files_and_leaves_them(name, form, source, target):
    write(source / "a.txt", b"a" * (3 << 20), age=DAY)
    write(source / "sub/b.txt", "b")
    result = done("archive", "*.txt", f"deep/{name}", recursive=True)
    assert (result["files"], set(tree(source))) == (2, {"a.txt", "sub/b.txt"})
    archive = target / "deep" / name
    if form == "zip":
        with zipfile.ZipFile(archive) as opened:
            contents = {n: opened.read(n) for n in opened.namelist()}
    else:
        with tarfile.open(archive, "r:gz") as opened:
            contents = {m.name: opened.extractfile(m).read() for m in opened}
    assert contents == {"a.txt": b"a" * (3 << 20), "sub/b.txt": b"b"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_an_archive_is_overwritten_only_by_its_equal(name, source, target):
    write(source / "a", "one", age=DAY)
    done("archive", "*", name)
    time.sleep(1.1)  # the bytes must not tell when they were written
    assert done("archive", "*", name)["files"] == 1
    write(source / "b", "two")
    outcome = attempt("archive", "*", name)
    assert (outcome.ok, outcome.error_type, outcome.effect_unknown) == (
        False,
        "TargetExists",
        False,
    )
    before = (target / name).read_bytes()
    done("archive", "*", name, overwrite=True)
    assert (target / name).read_bytes() != before


def test_an_archive_beside_its_files_does_not_hold_itself(source):
    write(source / "a")
    here = {"root": "in", "path": "all.zip"}
    done("archive", "*", here)
    result = done("archive", "*", here, overwrite=True)
    assert result["skipped"]["reasons"] == {"its own target": 1}
    with zipfile.ZipFile(source / "all.zip") as opened:
        assert opened.namelist() == ["a"]


def test_an_archive_with_more_files_than_allowed_is_not_written(source, target):
    for index in range(3):
        write(source / str(index))
    outcome = attempt("archive", "*", "x.zip", max_files=2)
    assert (outcome.ok, outcome.is_permanent) == (False, True)
    assert "more than 2 files" in outcome.error
    assert tree(target) == {}


def test_an_archive_that_would_unfold_too_far_is_not_written(source, target):
    with (source / "zeros").open("wb") as file:
        file.truncate(65 << 20)
    outcome = attempt("archive", "*", "x.zip")
    assert "unfold" in outcome.error and outcome.is_permanent
    assert tree(target) == {}


def test_compressing_makes_one_zip_of_each_file(source, target):
    write(source / "a.log", "a", age=DAY)
    write(source / "b.log", "b")
    assert done("compress", "*.log")["files"] == 2
    assert done("compress", "*", delete_originals=True)["skipped"]["reasons"] == {
        "a zip already": 2
    }
    assert set(tree(source)) == {"a.log.zip", "b.log.zip"}
    with zipfile.ZipFile(source / "a.log.zip") as opened:
        assert opened.read("a.log") == b"a"
    assert (source / "a.log.zip").stat().st_mtime < time.time() - DAY / 2


@pytest.mark.parametrize(
    ("operation", "path", "more"),
    [
        ("copy", "a", {"to": "x"}),
        ("move", "a", {"to": "x"}),
        ("delete", "a", {"all": True}),
        ("archive", "*", {"to": "x/y.zip"}),
        ("compress", "*", {"delete_originals": True}),
    ],
)
def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(
    operation, path, more, source, target
):
    write(source / "a", "content")
    result = done(operation, path, dry_run=True, **more)
    assert (result["dry_run"], result["files"], result["bytes"]) == (True, 1, 7)
    assert result["names"] == ["a"]
    assert tree(source) == {"a": b"content"}
    assert list(target.iterdir()) == []


def test_a_dry_run_tells_of_targets_that_exist(source, target):
    write(source / "a", "new")
    write(target / "a", "old")
    assert done("copy", "*", "", dry_run=True)["skipped"]["count"] == 1
    assert attempt("copy", "a", "", dry_run=True).error_type == "TargetExists"


def test_no_more_files_are_dealt_with_than_allowed(source):
    for index in range(5):
        write(source / str(index))
    result = done("delete", "*", all=True, max_files=3)
    assert (result["files"], result["more"]) == (3, True)
    assert set(tree(source)) == {"3", "4"}


def test_a_result_names_a_hundred_files_and_stays_small(source):
    for index in range(130):
        write(source / f"{index:03}-{'ü' * 100}")
    result = done("list", "*")
    assert (result["files"], len(result["names"]), result["truncated"]) == (130, 100, True)
    work = FakeWork()
    work.max_result_bytes = 2048
    small = done("list", "*", work=work)
    assert len(json.dumps(small, ensure_ascii=False).encode()) <= 2048
    assert (small["files"], small["truncated"]) == (130, True)


def test_names_that_are_no_text_are_dealt_with_and_shown(source, target):
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff\n"))).write_bytes(b"odd")
    assert done("copy", "*", "")["names"] == ["\\xff\n"]
    assert [os.fsencode(path.name) for path in target.iterdir()] == [b"\xff\n"]


def test_a_missing_file_or_folder_may_still_come(source):
    for path in ("a", "no/such/*"):
        outcome = attempt("copy", path, "x")
        assert (outcome.ok, outcome.error_type) == (False, "FileNotFoundError")
        assert not outcome.is_permanent and not outcome.effect_unknown
    assert done("copy", "*", "x")["files"] == 0


def test_progress_follows_the_bytes(source, target, monkeypatch):
    monkeypatch.setattr("jobs.executors.file_place.PROGRESS_SECONDS", 0.0)
    write(source / "a", os.urandom(8 << 20))
    write(source / "b", os.urandom(8 << 20))
    work = FakeWork()
    done("copy", "*", "", work=work)
    assert work.told == sorted(work.told)
    assert len(work.told) >= 16 and 99 < work.told[-1] <= 100


def test_places_below_the_roots_are_found_part_by_part(source, target, tmp_path, settings):
    (tmp_path / "in2").mkdir()
    (source / "sub").mkdir()
    (source / "out").symlink_to(tmp_path / "in2")
    (tmp_path / "alias").symlink_to(source)
    assert locate(f"{source}/sub/*.csv") == ("in", "sub/*.csv")
    assert locate(f"{source}//sub/./a.csv") == ("in", "sub/a.csv")
    assert locate(f"{tmp_path}/alias/a.csv") == ("in", "a.csv")
    assert locate(str(target)) == ("out", "")
    for path in (
        f"{tmp_path}/in2/a",
        f"{source}/out/a",
        f"{source}/../in2/a",
        str(tmp_path),
        "/etc/passwd",
        "sub/a.csv",
        f"{source}/a\0b",
        f"{source}/\ud800",
    ):
        with pytest.raises(PathRefused):
            locate(path)
    settings.FILE_ROOTS = []
    with pytest.raises(PathRefused, match="YARDMASTER_FILE_ROOTS"):
        locate(f"{source}/a")


def test_roots_are_read_with_their_rights():
    found = read_roots(["a=/srv/a/", "b=/srv//b:ro"])
    assert [(r.name, r.path, r.is_read_only) for r in found.values()] == [
        ("a", "/srv/a", False),
        ("b", "/srv/b", True),
    ]
