"""`manage.py secrets`, and the change of the key that they are encrypted with."""

from __future__ import annotations

from typing import Any

import pytest

from clusters.models import AuditEntry
from jobs.engine.enqueue import NewJob, enqueue
from jobs.models import Job, Secret
from jobs.sealing import SEAL, SealError, first_key, key_of, opened, opened_secret
from tests.jobs.steps.cases import do, submit

pytestmark = pytest.mark.usefixtures("alpha")
NEW_KEY = "another-" + "0a1b2c3d4e5f6g7h8i9j" * 2


def value_of(name: str) -> str:
    return opened_secret(name, Secret.objects.get(pk=name).sealed)


def test_a_secret_is_read_from_a_file_and_shown_without_its_value(run: Any, tmp_path: Any) -> None:
    file = tmp_path / "value"
    file.write_text("first line\nsecond line\n")
    done = run("secrets", "set", "deploy", "--from-file", str(file), "--description", "a key")
    assert (done.code, value_of("deploy")) == (0, "first line\nsecond line")
    file.write_text("another")
    again = run("secrets", "set", "deploy", "--from-file", str(file), "-o", "json")
    assert (again.json["version"], again.json["description"]) == (2, "a key")
    listed = run("secrets", "list")
    assert "deploy" in listed.out
    assert value_of("deploy") == "another"
    assert not any("another" in one.out + one.err for one in (done, again, listed))
    assert "another" not in repr([*AuditEntry.objects.values()])
    assert run("secrets", "delete", "deploy").code == 0
    assert run("secrets", "delete", "deploy").code == 3
    assert AuditEntry.objects.count() == 3


def test_what_cannot_be_a_secret_is_said(run: Any, tmp_path: Any) -> None:
    file = tmp_path / "value"
    file.write_text("abc")
    assert run("secrets", "set", "short", "--from-file", str(file)).code != 0
    assert run("secrets", "set", "none", "--from-file", str(tmp_path / "missing")).code == 2
    file.write_text("long enough")
    assert run("secrets", "set", "no/name", "--from-file", str(file)).code != 0
    assert not Secret.objects.exists()


def test_all_is_encrypted_with_the_new_key_and_the_old_one_can_go(run: Any, settings: Any) -> None:
    old = settings.SECRETS_KEYS[0]
    Secret.objects.all().create_secret("a", "value of a", by="test")
    job = submit(do("s"), secrets={"x": "Canary of a definition"})
    registry = {"username": "u", "password": "Canary-of-a-registry"}
    container = {"image": "i", "registry": registry, "env": {"A": "secret:a"}}
    other = enqueue(NewJob(kind="container", payload=container), by="test").job
    settings.SECRETS_KEYS = [NEW_KEY, old]
    done = run("secrets", "reseal", "-o", "json").json
    assert (done["secrets"], done["jobs"]) == (1, 2)
    assert run("secrets", "reseal", "-o", "json").json == dict.fromkeys(done, 0)
    settings.SECRETS_KEYS = [NEW_KEY]
    assert value_of("a") == "value of a"
    for one in (job, other):
        stored = Job.objects.get(pk=one.pk).payload
        assert key_of(stored[SEAL]) == first_key()
    kept = opened(Job.objects.get(pk=other.pk).payload)
    assert (kept.payload, kept.masks) == (container, ("Canary-of-a-registry",))
    assert Job.objects.get(pk=other.pk).payload["names"] == ["a"]


def test_without_the_old_key_nothing_can_be_renewed(run: Any, settings: Any) -> None:
    Secret.objects.all().create_secret("a", "value of a", by="test")
    settings.SECRETS_KEYS = [NEW_KEY]
    done = run("secrets", "reseal")
    assert done.code != 0
    assert "does not have" in done.err
    with pytest.raises(SealError):
        value_of("a")
