"""Every way to change something that an API offers: told once, and refused to a viewer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, get_resolver

from authn.models import AccessAuditEntry, Role
from authn.permissions import ANY_CALLER, LEAST_ROLE
from clusters.models import AuditEntry, ClusterSetting, forget_policies
from jobs.models import Job
from tests.api.conftest import Api, make_key  # noqa: F401  fixtures
from tests.deeds import world
from tests.deeds.stories import STORIES, Story
from tests.refusals import the_refusal

pytestmark = pytest.mark.usefixtures("alpha")
# They give something away and change nothing.
READS = {*ANY_CALLER, "schedules.export", *(verb for verb in LEAST_ROLE if verb.endswith(".read"))}
GRANTS = ("shell", "container")


def changing_routes() -> dict[str, str]:
    """Each action of a view that changes something, with the verb its view says it needs."""
    found: dict[str, str] = {}

    def walk(patterns: Any) -> Iterator[Any]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns)
            elif isinstance(pattern, URLPattern):
                yield pattern.callback

    for callback in walk(get_resolver().url_patterns):
        view = getattr(callback, "cls", None)
        for action in (getattr(callback, "actions", None) or {}).values():
            verb = getattr(view, "verbs", {}).get(action)
            if verb is not None and verb not in READS:
                name = f"{getattr(view, 'dialect', 'native')} {view.__name__} {action}"
                found[name] = verb
    return found


ROUTES = changing_routes()


@pytest.fixture
def things() -> dict[str, str]:
    return world.build()


@pytest.fixture
def call(make_key: Callable[..., str], things: dict[str, str]) -> Callable[..., HttpResponse]:  # noqa: F811
    keys = {role: Api(make_key(role, grants=GRANTS)) for role in Role.values}

    def ask(role: str, method: str, path: str, body: Any = None) -> HttpResponse:
        text = json.dumps([path, body])
        for name, pk in things.items():
            text = text.replace(f"{{{name}}}", pk)
        address, sent = json.loads(text)
        content = b"" if sent is None else json.dumps(sent).encode()
        # Django's client says nothing of the type of an empty body.
        headers = {**keys[role].headers, "Content-Type": "application/json"}
        client = keys[role].client
        return client.generic(method, address, content, "application/json", headers=headers)

    return ask


def begin(story: Story, name: str, call: Callable[..., HttpResponse], things: Any) -> None:
    """Make what the story is about, where only its own API can."""
    if story.first is None:
        return
    answer = call("admin", *story.first)
    assert answer.status_code < 300, answer.content
    things["made"] = answer.json()["id"]
    if name.endswith("restart"):
        call("admin", "PUT", "/jobs/{made}/cancel")
    if name.endswith("resume"):
        call("admin", "PUT", "/scheduled-jobs/{made}/pause")


def verb_of(name: str) -> str:
    """The verb that the route of a story needs."""
    return ROUTES[name.partition(",")[0]]


def told() -> list[Any]:
    return [
        *AuditEntry.objects.order_by("at", "id"),
        *AccessAuditEntry.objects.order_by("at", "id"),
    ]


def test_each_route_that_changes_something_has_a_story() -> None:
    assert {name.partition(",")[0] for name in STORIES} == ROUTES.keys()
    assert len(ROUTES) > 95


def test_each_verb_of_the_routes_is_in_the_table() -> None:
    assert set(ROUTES.values()) <= LEAST_ROLE.keys()


@pytest.mark.parametrize("name", STORIES)
def test_a_deed_is_told_once(name: str, call: Any, things: dict[str, str]) -> None:
    story = STORIES[name]
    begin(story, name, call, things)
    before = {entry.pk for entry in told()}
    verb = story.verb or verb_of(name)
    # The least role that the table names is enough.
    answer = call(str(LEAST_ROLE[verb]), story.method, story.path, story.body)
    assert answer.status_code < 300, answer.content
    entries = [entry for entry in told() if entry.pk not in before]
    assert [entry.verb for entry in entries] == [verb] * story.traces
    for entry in entries:
        assert isinstance(entry, AccessAuditEntry) is story.is_access
        assert entry.actor.startswith("key:") and entry.credential == "api_key"
        assert entry.surface == name.partition(" ")[0]
        assert (entry.address, entry.request_id) == ("127.0.0.1", answer["X-Request-ID"])
        assert entry.target_id or entry.filter or entry.after


@pytest.mark.once
@pytest.mark.parametrize("name", STORIES)
def test_a_viewer_does_none_of_it(name: str, call: Any, things: dict[str, str]) -> None:
    story = STORIES[name]
    begin(story, name, call, things)
    before, jobs = len(told()), world.rows_of_jobs()
    answer = call("viewer", story.method, story.path, story.body)
    assert answer.status_code == 403, answer.content
    assert (len(told()), world.rows_of_jobs()) == (before + 1, jobs)
    # Keys and roles have an address of no cluster.
    of_access = ROUTES[name.partition(",")[0]].partition(".")[0] in ("keys", "roles")
    row = the_refusal(answer, verb_of(name), "key:viewer-1", of_access=of_access)
    assert (row.surface, row.credential) == (name.partition(" ")[0], "api_key")


ENQUEUES = [name for name, story in STORIES.items() if not story.traces]


@pytest.mark.parametrize("name", ENQUEUES)
def test_an_enqueue_is_told_where_the_cluster_wants_it(name: str, call: Any) -> None:
    ClusterSetting.objects.all().persist({"audit_enqueues": 1}, by="test")
    forget_policies()
    story, count = STORIES[name], Job.objects.count()
    answer = call("operator", story.method, story.path, story.body)
    assert answer.status_code < 300, answer.content
    (entry,) = told()
    assert (entry.verb, entry.count) == ("jobs.enqueue", Job.objects.count() - count)
    forget_policies()
