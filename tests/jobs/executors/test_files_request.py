"""What the payload of a `files` job may say: bad input names its field, whatever the operation."""

from __future__ import annotations

import pytest

from jobs.errors import InvalidJob
from jobs.executors.files_request import read
from tests.jobs.executors.attempts import corpus

TO = {"root": "out", "path": "x"}


@pytest.fixture(autouse=True)
def _roots(settings):
    settings.FILE_ROOTS = ["in=/srv/in", "out=/srv/out", "ro=/srv/ro:ro"]


def refused(payload) -> tuple[str, str]:
    with pytest.raises(InvalidJob) as caught:
        read(payload)
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize("operation", [None, "", "Delete", "remove", "unlink", 3, ["delete"], {}])
def test_an_unknown_operation_is_refused_and_never_taken_for_another(operation):
    payload = {"operation": operation, "root": "in", "path": "*", "all": True}
    assert refused(payload)[0] == "payload.operation"
    del payload["operation"]
    assert refused(payload)[0] == "payload.operation"


def test_delete_needs_an_age_or_all():
    payload = {"operation": "delete", "root": "in", "path": "*"}
    assert refused(payload)[0] == "payload.older_than_seconds"
    assert refused({**payload, "newer_than_seconds": 5})[0] == "payload.older_than_seconds"
    assert refused({**payload, "all": False})[0] == "payload.older_than_seconds"
    assert refused({**payload, "older_then_seconds": 5})[0] == "payload.older_then_seconds"
    assert refused({**payload, "older_than_seconds": 5, "all": True})[0] == "payload.all"
    assert read({**payload, "older_than_seconds": 5}).older_than_seconds == 5
    assert read({**payload, "all": True}).older_than_seconds is None


def test_without_roots_everything_is_refused_with_a_hint(settings):
    settings.FILE_ROOTS = []
    for operation in ("list", "copy", "move", "delete", "archive", "compress"):
        payload = {"operation": operation, "root": "in", "path": "*"}
        field, text = refused(payload)
        assert field == "payload.root"
        assert "YARDMASTER_FILE_ROOTS" in text


@pytest.mark.parametrize("path", corpus("file_paths.txt"))
def test_a_path_that_leads_elsewhere_is_refused_wherever_it_stands(path):
    assert refused({"operation": "list", "root": "in", "path": path})[0] == "payload.path"
    copy = {"operation": "copy", "root": "in", "path": "a"}
    assert refused({**copy, "to": {"root": "out", "path": path}})[0] == "payload.to.path"
    assert refused({**copy, "to": {**TO, "name": path}})[0] == "payload.to.name"
    listed = {"operation": "list", "root": "in", "path": "", "pattern": path}
    assert refused(listed)[0] == "payload.pattern"


@pytest.mark.parametrize("path", ["%2e%2e/a", "..%2fa", "..a/b", "a..", "...", "a\\..\\b", "~/a"])
def test_nothing_in_a_path_is_decoded_or_expanded(path):
    request = read({"operation": "list", "root": "in", "path": path})
    assert "/".join((*request.parts, request.pattern)) == path


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ([], "payload"),
        ({"operation": "list", "path": "*"}, "payload.root"),
        ({"operation": "list", "root": "IN", "path": "*"}, "payload.root"),
        ({"operation": "list", "root": ["in"], "path": "*"}, "payload.root"),
        ({"operation": "list", "root": "in"}, "payload.path"),
        ({"operation": "list", "root": "in", "path": 3}, "payload.path"),
        ({"operation": "list", "root": "in", "path": ""}, "payload.path"),
        ({"operation": "list", "root": "in", "path": "a*/b"}, "payload.path"),
        ({"operation": "list", "root": "in", "path": "a", "pattern": "b/c"}, "payload.pattern"),
        ({"operation": "list", "root": "in", "path": "*", "to": TO}, "payload.to"),
        ({"operation": "list", "root": "in", "path": "*", "overwrite": True}, "payload.overwrite"),
        ({"operation": "list", "root": "in", "path": "*", "dry_run": 1}, "payload.dry_run"),
        ({"operation": "list", "root": "in", "path": "*", "max_files": 0}, "payload.max_files"),
        ({"operation": "list", "root": "in", "path": "*", "max_files": True}, "payload.max_files"),
        ({"operation": "copy", "root": "in", "path": "*"}, "payload.to"),
        ({"operation": "copy", "root": "in", "path": "*", "to": "x"}, "payload.to"),
        (
            {"operation": "copy", "root": "in", "path": "*", "to": {**TO, "root": "ro"}},
            "payload.to.root",
        ),
        (
            {"operation": "copy", "root": "in", "path": "*", "to": {**TO, "mode": 1}},
            "payload.to.mode",
        ),
        (
            {"operation": "copy", "root": "in", "path": "*", "to": {**TO, "name": "x"}},
            "payload.to.name",
        ),
        (
            {"operation": "copy", "root": "in", "path": "a/*", "to": {"root": "in", "path": "a"}},
            "payload.to.path",
        ),
        (
            {"operation": "archive", "root": "in", "path": "*", "to": {**TO, "path": ""}},
            "payload.to.path",
        ),
        (
            {"operation": "archive", "root": "in", "path": "*", "to": TO, "format": "rar"},
            "payload.format",
        ),
        ({"operation": "move", "root": "ro", "path": "*", "to": TO}, "payload.root"),
        ({"operation": "delete", "root": "ro", "path": "*", "all": True}, "payload.root"),
        ({"operation": "compress", "root": "ro", "path": "*"}, "payload.to"),
        (
            {
                "operation": "compress",
                "root": "ro",
                "path": "*",
                "to": TO,
                "delete_originals": True,
            },
            "payload.root",
        ),
        (
            {
                "operation": "delete",
                "root": "in",
                "path": "*",
                "all": True,
                "delete_empty_directories": True,
            },
            "payload.delete_empty_directories",
        ),
    ],
)
def test_a_mistake_names_its_field(payload, field):
    assert refused(payload)[0] == field


@pytest.mark.parametrize("value", [0, -1, True, "5", None, float("nan"), float("inf"), 10**400])
def test_an_age_is_a_sound_number(value):
    payload = {"operation": "list", "root": "in", "path": "*", "older_than_seconds": value}
    assert refused(payload)[0] == "payload.older_than_seconds"


def test_a_read_only_root_may_be_copied_from():
    for operation in ("copy", "archive", "compress"):
        read({"operation": operation, "root": "ro", "path": "*", "to": TO})
