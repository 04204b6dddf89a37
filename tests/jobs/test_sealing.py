"""Payloads with secrets are stored encrypted, under the keys of the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from config.env import Environment
from config.secrets_keys import read_secrets_keys
from jobs.definitions import plan
from jobs.definitions.stored import export
from jobs.engine import fires, schedules
from jobs.engine.edit import Changes, edit
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.requeue import requeue
from jobs.errors import DuplicateJob, InvalidJob, InvalidSchedule
from jobs.executors import kinds_started
from jobs.models import Job, Schedule
from jobs.sealing import SEAL, SealError, is_sealed, opened, seal, secrets_in
from jobs.secrets import meant_payload, shown_payload
from tests.jobs.steps.cases import do

OLD, NEW = "oldkey-" + "0a1b2c3d4e5f6g7h8i9j" * 2, "newkey-" + "9z8y7x6w5v4u3t2s1r0q" * 2
DEFINITION = {"steps": [do("a", {"t": "{{ secrets.token }}"})], "secrets": {"token": "canary-77"}}


def steps(payload: Any, **more: Any) -> NewJob:
    return NewJob(kind="steps", payload=payload, **more)


def test_the_same_payload_is_the_same_text_and_another_one_is_not(settings: Any) -> None:
    assert seal({"a": 1, "b": 2}, ["x"]) == seal({"b": 2, "a": 1}, ["x", "x"])
    assert seal({"a": 1}, ["x"]) != seal({"a": 1}, ["y"])


def test_another_key_encrypts_and_the_old_one_still_opens(settings: Any) -> None:
    settings.SECRETS_KEYS = [OLD]
    stored = seal({"a": 1}, ["canary"])
    settings.SECRETS_KEYS = [NEW, OLD]
    assert (opened(stored).payload, opened(stored).masks) == ({"a": 1}, ("canary",))
    assert seal({"a": 1}, ["canary"]) != stored
    settings.SECRETS_KEYS = [NEW]
    with pytest.raises(SealError, match="does not have"):
        opened(stored)


@pytest.mark.parametrize("text", ["", "nothing", "x:y", None, 3])
def test_what_is_no_sealed_text_is_not_opened(text: Any) -> None:
    with pytest.raises(SealError):
        opened({SEAL: text})


def test_a_changed_text_is_not_opened() -> None:
    text = seal({"a": 1}, [])[SEAL]
    other = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    with pytest.raises(SealError, match="damaged"):
        opened({SEAL: other})


def test_secrets_are_found_at_every_depth() -> None:
    inner = {"steps": [do("x")], "secrets": {"b": "two", "c": "{{ secrets.a }}"}}
    container = {"kind": "container", "payload": {"registry": {"password": "three"}}}
    payload = {
        "secrets": {"a": "{{ one }}"},
        "steps": [{"name": "s", "each": {"list": [], "step": {"name": "t", "subjob": inner}}}],
        "finally": [{"name": "p", "parallel": [{"name": "c", **container}]}],
    }
    assert secrets_in("steps", payload) == ["{{ one }}", "two", "three"]
    assert secrets_in("steps", {"steps": [do("a")]}) is None
    assert secrets_in("python", {"secrets": {"a": "b"}}) is None


def test_a_definition_with_secrets_is_stored_sealed(alpha: Any) -> None:
    job = enqueue(steps(DEFINITION), by="test").job
    stored = Job.objects.get(pk=job.pk).payload
    assert is_sealed(job.payload)
    assert (stored.keys(), "canary" in str(stored)) == ({SEAL}, False)
    assert opened(stored).payload == DEFINITION
    assert not is_sealed(enqueue(steps({"steps": [do("a")]}), by="test").job.payload)


def test_without_a_key_secrets_are_refused_and_other_work_is_not(alpha: Any, settings: Any) -> None:
    settings.SECRETS_KEYS = []
    with pytest.raises(InvalidJob, match="YARDMASTER_SECRETS_KEY") as refused:
        enqueue(steps(DEFINITION), by="test")
    assert refused.value.field == "payload"
    assert enqueue(steps({"steps": [do("a")]}), by="test").created


@pytest.mark.parametrize("kind", ["python", "steps"])
def test_nobody_can_give_a_sealed_payload(alpha: Any, kind: str) -> None:
    stolen = seal(DEFINITION, ["canary-77"])
    with pytest.raises(InvalidJob) as refused:
        enqueue(NewJob(kind=kind, type="do", payload=stolen), by="test")
    assert refused.value.field == "payload.$sealed"
    job = enqueue(NewJob(type="do", delay_seconds=60), by="test").job
    with pytest.raises(InvalidJob):
        edit(job, Changes(payload=stolen))
    assert Job.objects.count() == 1


def test_the_same_id_and_content_is_the_same_job_also_after_another_key(
    alpha: Any, settings: Any
) -> None:
    settings.SECRETS_KEYS = [OLD]
    job = enqueue(steps(DEFINITION), by="test").job
    assert not enqueue(steps(DEFINITION, id=job.pk), by="test").created
    settings.SECRETS_KEYS = [NEW, OLD]
    assert not enqueue(steps(DEFINITION, id=job.pk), by="test").created
    with pytest.raises(DuplicateJob):
        enqueue(steps({**DEFINITION, "secrets": {"token": "other"}}, id=job.pk), by="test")


def test_a_requeued_job_is_sealed_with_the_first_key(alpha: Any, settings: Any) -> None:
    settings.SECRETS_KEYS = [OLD]
    job = enqueue(steps(DEFINITION), by="test").job
    settings.SECRETS_KEYS = [NEW, OLD]
    copy = requeue(job, by="test")
    settings.SECRETS_KEYS = [NEW]
    assert opened(copy.payload).payload == DEFINITION
    with pytest.raises(SealError):
        requeue(job, by="test")


def test_what_is_shown_can_be_sent_back_and_means_what_is_stored(alpha: Any) -> None:
    literal = {**DEFINITION, "inputs": {"copy": "has canary-77 in it"}, "output": "x"}
    job = enqueue(steps(literal, delay_seconds=60), by="test").job
    shown = shown_payload(job.kind, job.payload)
    assert shown["secrets"] == {"token": "[REDACTED]"}
    assert shown["inputs"] == {"copy": "has [REDACTED] in it"}
    assert shown["steps"][0]["payload"] == {"t": "{{ secrets.token }}"}
    changed = meant_payload(job.kind, {**shown, "output": "y"}, job.payload)
    assert changed == {**literal, "output": "y"}
    edit(job, Changes(payload=changed))
    assert opened(job.payload).payload == changed


def test_short_secrets_are_not_shown_either(alpha: Any) -> None:
    job = enqueue(steps({**DEFINITION, "secrets": {"pin": "12"}}), by="test").job
    assert shown_payload(job.kind, job.payload)["secrets"] == {"pin": "[REDACTED]"}


def test_headers_of_steps_are_masked_by_their_names_but_for_expressions() -> None:
    headers = {"Authorization": "Bearer one", "X-Api-Key": "{{ secrets.a }}", "Cookie": "a{{ b }}"}
    step = {"name": "a", "kind": "http", "payload": {"url": "https://x", "headers": headers}}
    shown = shown_payload("steps", {"steps": [{"name": "p", "parallel": [step]}]})
    assert shown["steps"][0]["parallel"][0]["payload"]["headers"] == {
        "Authorization": "***",
        "X-Api-Key": "{{ secrets.a }}",
        "Cookie": "***",
    }


# -- Configuration ---------------------------------------------------------------------------------


def keys(text: str, kept: Any) -> tuple[list[str], list[str]]:
    env = Environment({"YARDMASTER_SECRETS_KEY": text} if text else {})
    return read_secrets_keys(env, kept), env.problems


def test_keys_stand_behind_each_other(tmp_path: Any) -> None:
    assert keys(f"{NEW}, {OLD}\n", tmp_path / "none") == ([NEW, OLD], [])
    assert keys("", tmp_path / "none") == ([], [])
    (tmp_path / "kept").write_text(f"{OLD}\n")
    assert keys("", tmp_path / "kept") == ([OLD], [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (NEW[:31], "key 1 needs at least 32 characters"),
        (f"{NEW},{OLD[:20]}", "key 2 needs at least 32 characters"),
        ("changeme-" + NEW, "key 1 is one out of an example"),
        ("ab" * 20, "key 1 is not random"),
        (f"{NEW},{NEW}", "names a key twice"),
    ],
)
def test_a_key_that_protects_nothing_is_refused(tmp_path: Any, text: str, problem: str) -> None:
    assert keys(text, tmp_path / "none")[1] == [f"YARDMASTER_SECRETS_KEY: {problem}"]


# -- Schedules -------------------------------------------------------------------------------------


def schedule(**more: Any) -> Schedule:
    values = {"name": "nightly", "kind": "steps", "payload": DEFINITION, "timing": "interval"}
    return schedules.create({**values, "interval_seconds": 3600, **more}, by="test")


def test_a_schedule_keeps_its_secrets_sealed_and_so_do_its_jobs(alpha: Any) -> None:
    made = schedule(has_variables=True)
    assert is_sealed(Schedule.objects.get().payload)
    job = Job.objects.get(pk=fires.trigger(made.pk, by="test").job_id)
    assert opened(job.payload).payload == DEFINITION
    schedules.change(made.pk, {"description": "x"}, by="test")
    assert opened(Schedule.objects.get().payload).payload == DEFINITION


def test_nobody_can_give_a_schedule_a_sealed_payload(alpha: Any) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        schedule(payload=seal(DEFINITION, []))
    assert refused.value.field == "payload.$sealed"
    made = schedule()
    with pytest.raises(InvalidSchedule):
        fires.trigger(made.pk, by="test", payload=seal(DEFINITION, []))
    with pytest.raises(InvalidSchedule):
        schedules.change(made.pk, {"payload": seal(DEFINITION, [])}, by="test")


def test_the_kinds_of_sealed_steps_are_known(alpha: Any) -> None:
    job = enqueue(steps(DEFINITION), by="test").job
    assert kinds_started("steps", job.payload) == ["steps", "python"]


def test_files_of_definitions_hold_no_secrets_and_take_none_away(alpha: Any) -> None:
    made = schedule()
    found, remarks = export("cluster-alpha")
    assert "canary" not in str(found)
    assert remarks == ["schedule 'nightly' holds secrets, which are left out"]
    assert plan.apply(found, by="test").changes == []
    found.schedules["nightly"]["payload"]["name"] = "another"
    assert len(plan.apply(found, by="test").changes) == 1
    stored = opened(Schedule.objects.get(pk=made.pk).payload).payload
    assert stored == {**DEFINITION, "name": "another"}


def test_what_a_dialect_keeps_of_a_definition_is_sealed_with_it(alpha: Any) -> None:
    notes = {"tork": {"secrets": {"token": "canary-77"}}, "audience": ["role:public"]}
    new = NewJob(kind="steps", payload=DEFINITION, notes=notes)
    stored = Job.objects.get(pk=enqueue(new, by="test").job.pk).dialect_notes
    assert "canary" not in str(stored)
    assert opened(stored["tork"]).payload == notes["tork"]
    assert stored["audience"] == ["role:public"]
    values = {"name": "n", "kind": "steps", "payload": DEFINITION, "timing": "interval"}
    made = schedules.create({**values, "interval_seconds": 60}, by="test", notes=notes)
    assert "canary" not in str(Schedule.objects.get(pk=made.pk).dialect_notes)
    job = Job.objects.get(pk=fires.trigger(made.pk, by="test").job_id)
    assert opened(job.dialect_notes["tork"]).payload == notes["tork"]
