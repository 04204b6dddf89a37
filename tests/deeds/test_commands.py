"""Every deed of the commands: told once, by the name of the operating-system user."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import load_command_class

from authn.models import AccessAuditEntry
from clusters.management.base import OperatorCommand, operator
from clusters.models import AuditEntry, Node
from tests.commands.conftest import run  # noqa: F401  fixture
from tests.deeds import world

pytestmark = pytest.mark.usefixtures("alpha")
APPS = {
    **dict.fromkeys(
        ("jobs", "queues", "schedules", "workflows", "pause", "resume", "trigger"), "jobs"
    ),
    **dict.fromkeys(("definitions", "restored", "failures", "alerts", "doctor", "secrets"), "jobs"),
    **dict.fromkeys(("nodes", "clusters", "audit"), "clusters"),
    **dict.fromkeys(("keys", "roles", "users", "token"), "authn"),
}
# What is typed, and the verb of the trace; None: a plain enqueue, which the job itself tells.
DEEDS: dict[str, tuple[str, str | None]] = {
    "jobs enqueue": ("demo:noop", None),
    "jobs cancel": ("{ready}", "jobs.cancel"),
    "jobs retry": ("{failed}", "jobs.retry"),
    "jobs run-now": ("{scheduled}", "jobs.run_now"),
    "jobs delete": ("{succeeded} --yes", "jobs.delete"),
    "jobs move": ("{ready} --to mail", "jobs.change"),
    "jobs set-priority": ("{ready} --to 4", "jobs.change"),
    "jobs edit": ("{ready} --priority 9", "jobs.change"),
    "jobs requeue": ("{succeeded}", "jobs.requeue"),
    "jobs bulk": ("--action cancel --filter queue=mail --reason r", "bulk_operations.request"),
    "jobs bulk-stop": ("{operation}", "bulk_operations.stop"),
    "queues create": ("new", "queues.create"),
    "queues change": ("mail --max-concurrency 3", "queues.change"),
    "queues pause": ("mail", "queues.pause"),
    "queues resume": ("slow", "queues.resume"),
    "queues delete": ("mail --yes", "queues.delete"),
    "queues purge": ("mail --reason r --yes", "queues.purge"),
    "schedules pause": ("nightly", "schedules.pause"),
    "schedules resume": ("paused", "schedules.resume"),
    "schedules trigger": ("nightly", "schedules.trigger"),
    "schedules skip-next": ("nightly", "schedules.skip_next"),
    "schedules run-missed": ("nightly --which latest", "schedules.run_missed"),
    "schedules pause-all": ("", "schedules.pause_all"),
    "schedules resume-all": ("", "schedules.resume_all"),
    "workflows trigger": ("flow", "workflows.trigger"),
    "pause": ("nightly", "schedules.pause"),
    "resume": ("slow", "queues.resume"),
    "trigger": ("flow", "workflows.trigger"),
    "definitions apply": ("{file} --yes", "queues.create"),
    "restored mark": ("", "restored.mark"),
    "secrets set": ("token --from-file {file}", "secrets.write"),
    "secrets delete": ("token", "secrets.write"),
    "secrets reseal": ("", "secrets.write"),
    "failures known": ("{failure} --reason r", "failures.change"),
    "failures mute": ("{failure} --for 8h", "failures.change"),
    "failures unmute": ("{failure}", "failures.change"),
    "failures own": ("{failure} --owner ann", "failures.change"),
    "alerts create": ("n --kind dead_nodes", "alerts.create"),
    "alerts change": ("late --limit 9m", "alerts.change"),
    "alerts delete": ("late --yes", "alerts.delete"),
    "alerts test": ("late", "alerts.test"),
    "alerts acknowledge": ("late --reason r", "alerts.acknowledge"),
    "alerts mute": ("late --for 2h", "alerts.mute"),
    "alerts unmute": ("late", "alerts.mute"),
    "nodes drain": ("{node}", "nodes.drain"),
    "clusters set": ("alpha max_crashes=4 --reason r", "settings.change"),
    "keys create": ("--name k --role viewer --cluster alpha", "keys.create"),
    "roles give": ("group mailers --role viewer --cluster alpha", "roles.give"),
    "users create": ("carol --password-stdin", "users.create"),
    "users password": ("bob --password-stdin", "users.change"),
    "users deactivate": ("bob", "users.change"),
    "users activate": ("eve", "users.change"),
}
LOOKS = {
    *("jobs list", "jobs show", "jobs why", "jobs attempts", "jobs logs", "jobs steps"),
    *("jobs bulk-list", "queues list", "queues show", "schedules list", "schedules show"),
    *("schedules next", "schedules fires", "workflows list", "workflows show", "workflows runs"),
    *("definitions export", "definitions plan", "restored show", "secrets list", "failures list"),
    *(
        "alerts list",
        "alerts show",
        "alerts preview",
        "failures show",
        "doctor",
        "nodes list",
        "nodes show",
        "nodes check",
        "clusters list",
    ),
    *("clusters show", "clusters changes", "audit list", "audit export", "keys list", "roles list"),
    "users list",
    # The second half of what is told below.
    *(
        "restored confirm",
        "keys change",
        "keys revoke",
        "keys rotate",
        "roles take",
        "nodes undrain",
    ),
    # They keep nothing.
    *("keys digest", "token"),
}


def typed() -> set[str]:
    """Every command for operators, with each of its verbs."""
    found: set[str] = set()
    for name, app in APPS.items():
        command = load_command_class(app, name)
        assert isinstance(command, OperatorCommand)
        command.create_parser("manage.py", name)
        verbs = getattr(command, "_verbs", None)
        found |= {name} if verbs is None else {f"{name} {verb}" for verb in verbs.choices}
    return found


def test_each_verb_of_a_command_has_a_story_or_only_looks() -> None:
    there = {path.stem for app in set(APPS.values()) for path in _commands(app)}
    assert there - {
        "__init__",
        "up",
        "serve",
        "worker",
        "migrate",
        "openapi",
        "demo",
    } <= APPS.keys() | {"token"}
    assert DEEDS.keys() | LOOKS >= typed()
    assert not DEEDS.keys() & LOOKS


def _commands(app: str) -> list[Path]:
    return [*(Path(__file__).parents[2] / app / "management/commands").glob("*.py")]


@pytest.fixture
def things(tmp_path: Path) -> dict[str, str]:
    Group.objects.create(name="mailers")
    users = get_user_model()._default_manager
    users.create(username="bob")
    users.create(username="eve", is_active=False)
    file = tmp_path / "definitions.yaml"
    file.write_text("queues:\n  fresh: {}\n")
    return {**world.build(), "file": str(file)}


@pytest.mark.once
@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_told_once(
    name: str,
    things: dict[str, str],
    run: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, verb = DEEDS[name]
    # Where a password is asked for.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"violet-harbour-42\n")))
    done = run(*name.split(), *words.format(**things).split())
    assert done.code == 0, done.err
    entries = [*AuditEntry.objects.all(), *AccessAuditEntry.objects.all()]
    assert [entry.verb for entry in entries] == ([] if verb is None else [verb])
    for entry in entries:
        assert (entry.actor, entry.surface) == (operator(), "command")
        assert entry.actor.startswith("cli:") and entry.credential == "os_user"


def test_keys_roles_and_restores_are_told_from_beginning_to_end(
    things: dict[str, str],
    run: Any,  # noqa: F811
) -> None:
    for words in (
        "keys create --name k --role viewer --cluster alpha",
        "roles give key k --role admin --cluster alpha --grant shell",
        "roles take key k --cluster alpha",
        "keys rotate k",
        "keys change k --rename l --owner anna --expires 30d --from 10.0.0.0/8",
        "keys change l --rename k --never-expires --from-anywhere",
        "keys revoke k --yes",
    ):
        assert run(*words.split()).code == 0
    entries = [*AccessAuditEntry.objects.order_by("at", "id")]
    assert [entry.verb for entry in entries] == [
        *("keys.create", "roles.give", "roles.take"),
        *("keys.change", "keys.change", "keys.change", "keys.revoke"),
    ]
    assert [entry.target_id for entry in entries] == [*"kkkkklk"]
    created, given, taken, rotated, *changed, _ = entries
    assert changed[0].before["name"] == changed[1].after["name"] == "k"
    assert changed[0].after["addresses"] == ["10.0.0.0/8"] and changed[1].after["addresses"] == []
    assert changed[0].after["expires_at"] and changed[1].after["expires_at"] is None
    assert created.after["role"] == "viewer" and "digest" not in created.after
    assert (given.before, given.after) == (
        {"role": "viewer", "granted_kinds": []},
        {"role": "admin", "granted_kinds": ["shell"]},
    )
    assert taken.before == given.after
    assert rotated.after["is_rotated"] and "digest" not in rotated.after
    for verb in ("drain", "undrain"):
        assert run("nodes", verb, things["node"]).code == 0
    verbs = AuditEntry.objects.order_by("at", "id").values_list("verb", "target_id")
    assert [*verbs] == [(f"nodes.{verb}", things["node"]) for verb in ("drain", "undrain")]
    # A node that lives might still have jobs of the cluster that was restored.
    Node.objects.all().alive().close()
    assert run("restored", "mark").code == run("restored", "confirm", "--yes").code == 0
    verbs = AuditEntry.objects.order_by("at", "id").values_list("verb", flat=True)
    assert [*verbs][2:] == ["restored.mark", "restored.confirm"]
