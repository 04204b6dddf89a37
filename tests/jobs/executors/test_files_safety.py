"""File jobs stay inside their roots, whatever lies there and whoever exchanges it meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.jobs.executors.file_work import FakeWork, attempt, done, drafts, tree, write

pytestmark = pytest.mark.usefixtures("roots")

SWAPS = 1000
OPERATIONS = [
    ("copy", {"to": "x"}),
    ("move", {"to": "x"}),
    ("archive", {"to": "x/all.zip"}),
    ("archive", {"to": "x/all.tar.gz"}),
    ("compress", {}),
    ("compress", {"delete_originals": True}),
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the roots, with a file that nobody may reach."""
    write(tmp_path / "outside/secret", "SECRET")
    return tmp_path / "outside"


def reached(target: Path) -> list[str]:
    """Files that hold what lies outside, packed or not."""
    found = [name for name, content in tree(target).items() if b"SECRET" in content]
    for path in target.rglob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            found += [name for name in opened.namelist() if b"SECRET" in opened.read(name)]
    return found


# -- What is no plain file -------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "more"), [*OPERATIONS, ("delete", {"all": True})])
def test_a_folder_that_is_a_link_is_not_entered(operation, more, source, target, outside):
    (source / "sub").symlink_to(outside)
    write(source / "real/a")
    refused = attempt(operation, "sub/*", **more)
    assert (refused.ok, refused.error_type, refused.is_permanent) == (False, "PathRefused", True)
    assert attempt(operation, "sub/secret", **more).error_type == "PathRefused"
    done(operation, "*", recursive=True, **more)
    assert reached(target) == reached(source) == []
    assert tree(outside) == {"secret": b"SECRET"}
    assert (source / "sub").is_symlink()


@pytest.mark.parametrize(("operation", "more"), OPERATIONS)
@pytest.mark.parametrize("what", ["link", "hard link", "fifo", "device"])
def test_nothing_but_plain_files_is_read_or_moved(what, operation, more, source, target, outside):
    odd = source / "odd"
    if what == "link":
        odd.symlink_to(outside / "secret")
    elif what == "hard link":
        odd.hardlink_to(outside / "secret")
    elif what == "fifo":
        os.mkfifo(odd)
    elif os.geteuid() == 0:
        os.mknod(odd, 0o020666, os.makedev(1, 5))
    else:
        pytest.skip("only root makes devices")
    write(source / "plain", "fine")
    result = done(operation, "*", **more)
    assert (result["files"], result["skipped"]["count"]) == (1, 1)
    refused = attempt(operation, "odd", **more)
    assert not refused.ok and refused.is_permanent
    assert os.path.lexists(odd)
    assert reached(target) == [] and (outside / "secret").read_text() == "SECRET"


def test_deleting_takes_away_names_and_nothing_that_others_still_see(source, outside):
    (source / "hard").hardlink_to(outside / "secret")
    (source / "link").symlink_to(outside / "secret")
    os.mkfifo(source / "fifo")
    result = done("delete", "*", all=True)
    assert (result["names"], result["skipped"]["count"]) == (["hard"], 2)
    assert tree(outside) == {"secret": b"SECRET"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_a_link(overwrite, source, target, outside):
    write(source / "secret", "new")
    (target / "sub").symlink_to(outside)
    (target / "secret").symlink_to(outside / "secret")
    (target / "dangling").symlink_to(outside / "made")
    for operation in ("copy", "move"):
        assert attempt(operation, "secret", "sub", overwrite=overwrite).error_type == "PathRefused"
        assert (
            attempt(operation, "secret", "sub/x", overwrite=overwrite).error_type == "PathRefused"
        )
        assert not attempt(operation, "secret", "", overwrite=overwrite).ok
        named = {"root": "out", "path": "", "name": "dangling"}
        assert not attempt(operation, "secret", named, overwrite=overwrite).ok
    attempt("archive", "*", "dangling", overwrite=overwrite)
    assert tree(outside) == {"secret": b"SECRET"}


def test_names_that_would_lead_out_where_an_archive_is_unpacked_are_left_out(source, target):
    for name in ("x\\..\\..\\evil", "C:evil", "a\nb", "fine", "-rf", "ünïcode"):
        write(source / name)
    write(Path(os.fsdecode(os.fsencode(source) + b"/\xff")))
    for archive in ("x.zip", "x.tar.gz"):
        result = done("archive", "*", archive)
        assert sorted(result["names"]) == ["-rf", "fine", "ünïcode"]
        assert result["skipped"]["count"] == 4
    assert done("compress", "*")["files"] == 3


def test_drafts_of_others_are_neither_taken_nor_listed(source, target):
    other = write(source / ".ym-0190-7-1.part")
    assert done("list", "", pattern=".*")["files"] == 0
    assert done("delete", "", pattern=".*", all=True, recursive=True)["files"] == 0
    other.unlink()


# -- What is exchanged meanwhile -------------------------------------------------------------------


SWAPPER = """
import ctypes, os, sys
kind, place, outside = sys.argv[1:]
aside, swaps, libc = place + "-aside", 0, ctypes.CDLL(None)
if kind == "folder":
    os.symlink(outside, aside)
while True:
    if kind == "folder":
        # Both change places in one step: there is no moment without.
        assert libc.renameat2(-100, place.encode(), -100, aside.encode(), 2) == 0
    elif kind == "link":
        os.symlink(outside + "/secret", aside); os.replace(aside, place)
        with open(aside, "w") as file: file.write("plain")
        os.replace(aside, place)
    else:
        os.link(outside + "/secret", aside); os.replace(aside, place)
        with open(aside, "w") as file: file.write("plain")
        os.replace(aside, place)
    swaps += 1
    if swaps % 50 == 0: print(swaps, flush=True)
"""


@contextmanager
def swapping(kind: str, place: Path, outside: Path):
    """Exchange a file or folder in another process; yields a function that counts the swaps."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, kind, str(place), str(outside)], stdout=subprocess.PIPE
    )
    os.set_blocking(process.stdout.fileno(), False)
    seen = b""

    def swaps() -> int:
        nonlocal seen
        seen += process.stdout.read() or b""
        assert process.poll() is None, "the swapper has ended"
        lines = seen.split(b"\n")[:-1]
        return int(lines[-1]) if lines else 0

    try:
        yield swaps
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("operation", ["copy", "move", "delete", "archive", "list"])
def test_a_folder_swapped_for_a_link_leads_nowhere(operation, source, target, outside):
    place = source / "sub"
    more = {
        "copy": {"to": "x", "overwrite": True},
        "move": {"to": "x", "overwrite": True},
        "archive": {"to": "x.zip", "overwrite": True},
        "delete": {"all": True},
        "list": {},
    }[operation]
    place.mkdir()
    real, worked = os.open(place, os.O_DIRECTORY), 0
    with swapping("folder", place, outside) as swaps:
        while swaps() < SWAPS or worked < 20:
            os.close(os.open("secret", os.O_CREAT | os.O_WRONLY, dir_fd=real))
            worked += attempt(operation, "sub/*", **more).ok
            attempt(operation, "secret", recursive=True, **more)
            assert tree(outside) == {"secret": b"SECRET"}
            assert reached(target) == []
    os.close(real)


@pytest.mark.parametrize("operation", ["copy", "move", "archive", "compress"])
def test_a_target_folder_swapped_for_a_link_leads_nowhere(operation, source, target, outside):
    (target / "sub").mkdir()
    to = "sub/x.zip" if operation == "archive" else "sub"
    worked = 0
    with swapping("folder", target / "sub", outside) as swaps:
        while swaps() < SWAPS or worked < 20:
            write(source / "secret", "plain")
            worked += attempt(operation, "*", {"root": "out", "path": to}, overwrite=True).ok
            assert tree(outside) == {"secret": b"SECRET"}


@pytest.mark.parametrize("kind", ["link", "hard link"])
@pytest.mark.parametrize("operation", ["copy", "archive", "compress"])
def test_a_file_swapped_for_a_link_is_not_read(kind, operation, source, target, outside):
    write(source / "file", "plain")
    to = {"root": "out", "path": "x.zip" if operation == "archive" else ""}
    with swapping(kind, source / "file", outside) as swaps:
        while swaps() < SWAPS:
            attempt(operation, "file", to, overwrite=True)
            assert reached(target) == []


def test_a_move_puts_back_what_was_exchanged_meanwhile(source, target, outside, monkeypatch):
    from jobs.executors import file_drafts

    write(source / "file", "plain")
    real = file_drafts.rename_to_new
    calls = []

    def exchange_first(folder, name, other, new_name):
        if not calls:
            (source / "file").unlink()
            (source / "file").symlink_to(outside / "secret")
        calls.append(name)
        return real(folder, name, other, new_name)

    monkeypatch.setattr(file_drafts, "rename_to_new", exchange_first)
    outcome = attempt("move", "file", "")
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "FileChanged", False)
    assert (source / "file").is_symlink() and list(target.iterdir()) == []


@pytest.mark.parametrize("operation", ["copy", "move", "delete", "compress"])
def test_another_file_of_the_same_name_is_left_alone(operation, source, target):
    write(source / "file", "looked at")
    looks = iter(range(100))

    def exchange() -> bool:
        # The first look is made while files are looked for, the second before each is dealt with.
        if next(looks) == 1:
            write(source / "other", "another!!")
            (source / "other").rename(source / "file")
        return False

    more = {"copy": {"to": ""}, "move": {"to": ""}, "delete": {"all": True}, "compress": {}}
    outcome = attempt(operation, "file", work=FakeWork(cancels=exchange), **more[operation])
    assert (outcome.ok, outcome.error) == (False, "file: changed meanwhile")
    assert not outcome.is_permanent
    assert (tree(source), tree(target)) == ({"file": b"another!!"}, {})


ROTATOR = """
import os, sys, time
place, lost = sys.argv[1], 0
for turn in range(600):
    for name, age in (("old", 90000), ("fresh", 0)):
        with open(place + "." + name, "w") as file: file.write(name)
        os.utime(place + "." + name, (time.time() - age,) * 2)
        os.rename(place + "." + name, place)
    for _ in range(200):
        # It may be away for a moment, while it is looked at.
        if os.path.exists(place): break
        time.sleep(0.001)
    else:
        lost += 1
print(lost)
"""


def test_a_fresh_file_that_takes_the_place_of_an_old_one_is_not_deleted(source):
    write(source / "log", age=90_000)
    process = subprocess.Popen(
        [sys.executable, "-c", ROTATOR, str(source / "log")], stdout=subprocess.PIPE, text=True
    )
    deleted = 0
    while process.poll() is None:
        outcome = attempt("delete", "*g", older_than_seconds=3600)
        deleted += outcome.result["files"]
    assert process.communicate()[0].strip() == "0"
    assert deleted > 10
    assert (source / "log").read_text() == "fresh"
    for kept in drafts(source):
        # It was exchanged twice while it was looked at; then none of the two is given up.
        kept.unlink()


def test_two_jobs_never_write_one_name_and_one_of_them_says_so(source, target):
    for index in range(40):
        write(source / "a" / str(index), "a" * 1000)
        write(source / "b" / str(index), "b" * 1000)
    pid = os.fork()
    if pid == 0:
        try:
            outcome = attempt("copy", "a/*", "")
            os._exit(outcome.result["files"])
        finally:
            os._exit(255)
    ours = done("copy", "b/*", "")["files"]
    theirs = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert theirs + ours == 40
    contents = list(tree(target).values())
    assert contents.count(b"a" * 1000) == theirs and contents.count(b"b" * 1000) == ours


def test_a_file_that_changes_while_it_is_copied_is_not_published(source, target):
    write(source / "a", b"x" * (3 << 20))
    looks = iter(range(100))

    def grow() -> bool:
        if next(looks) == 3:
            with (source / "a").open("ab") as file:
                file.write(b"more")
        return False

    for operation, to in (("copy", ""), ("archive", "x.zip")):
        looks = iter(range(100))
        outcome = attempt(operation, "a", to, work=FakeWork(cancels=grow))
        assert (outcome.ok, outcome.error_type) == (False, "FileChanged")
        assert not outcome.is_permanent
        assert tree(target) == {}
