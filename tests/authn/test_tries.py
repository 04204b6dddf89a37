"""Too many tries: counted for all processes, refused in the words of each surface."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authn import tries
from authn.hashing import gate
from authn.keys import create_key
from authn.models import AccessAuditEntry, Tries
from authn.tokens import issue
from authn.tries import TooManyTries, blocked_seconds, count_failure, subjects_of
from tests.api.conftest import Api, check_problem
from tests.processes import ROOT, worker_environment

pytestmark = pytest.mark.django_db
ONE = subjects_of("192.0.2.1", user="ann")
BAD_KEY = f"ym_{'0' * 16}_{'0' * 64}"


@pytest.fixture(autouse=True)
def _ten_a_minute(settings: Any) -> None:
    settings.TRIES_PER_MINUTE = 10
    gate._suspicious_until = 0.0


@pytest.fixture
def ann(django_user_model: Any) -> Any:
    return django_user_model.objects.create_superuser("ann", password="secret")


def fail(subjects: list[str], times: int = 10) -> None:
    for _ in range(times):
        count_failure(subjects)


def let_pass(**time: float) -> None:
    """Everything was so much earlier."""
    ago = timedelta(**time)
    Tries.objects.update(
        counted_since=F("counted_since") - ago,
        last_failed_at=F("last_failed_at") - ago,
        blocked_until=F("blocked_until") - ago,
    )


# -- The rules -------------------------------------------------------------------------------------


def test_ten_failures_within_a_minute_block() -> None:
    fail(ONE, 9)
    assert blocked_seconds(ONE) == 0
    fail(ONE, 1)
    assert 50 < blocked_seconds(ONE) <= 60
    with pytest.raises(TooManyTries) as refused:
        count_failure(ONE)
    assert 50 <= (refused.value.wait or 0) <= 60


def test_identity_and_address_count_each_by_itself() -> None:
    fail(ONE)
    assert blocked_seconds(subjects_of("192.0.2.1", user="bob")) > 0
    assert blocked_seconds(subjects_of("192.0.2.2", user="ann")) > 0
    assert blocked_seconds(subjects_of("192.0.2.2", user="bob")) == 0
    # A key of the same name is somebody else.
    assert blocked_seconds(subjects_of("192.0.2.2", key="ann")) == 0


def test_failures_of_an_earlier_minute_do_not_count() -> None:
    fail(ONE, 9)
    let_pass(seconds=61)
    fail(ONE, 9)
    assert blocked_seconds(ONE) == 0


def test_each_block_is_twice_as_long_up_to_an_hour() -> None:
    waits = []
    for _ in range(8):
        fail(ONE)
        waits.append(round(blocked_seconds(ONE) / 60))
        let_pass(seconds=blocked_seconds(ONE) + 1)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_quiet_time_begins_again_with_a_minute() -> None:
    fail(ONE)
    let_pass(hours=2)
    fail(ONE)
    assert blocked_seconds(ONE) <= 60


def test_failing_while_blocked_prolongs_nothing_and_writes_nothing() -> None:
    fail(ONE)
    before = [*Tries.objects.order_by("pk").values()]
    with CaptureQueriesContext(connections["default"]) as asked, pytest.raises(TooManyTries):
        count_failure(ONE)
    assert len(asked) == 1
    assert [*Tries.objects.order_by("pk").values()] == before


def test_a_block_leaves_a_trace_and_a_try_leaves_none() -> None:
    fail(ONE, 9)
    assert AccessAuditEntry.objects.count() == 0
    fail(ONE, 1)
    with pytest.raises(TooManyTries):
        count_failure(ONE)
    told = AccessAuditEntry.objects.order_by("target_id").values_list(
        "verb", "actor", "address", "target_id"
    )
    assert [*told] == [("tries.block", "unknown", "192.0.2.1", subject) for subject in sorted(ONE)]


def test_names_are_not_kept_for_somebody_may_type_a_password_there() -> None:
    fail(subjects_of("192.0.2.1", user="hunter2"), 1)
    kept = json.dumps([*Tries.objects.values_list("subject", flat=True)])
    assert "hunter2" not in kept
    assert "192.0.2.1" in kept


def test_addresses_of_one_host_are_one() -> None:
    assert subjects_of("2001:db8::1") == subjects_of("2001:db8::ffff:1")
    assert subjects_of("2001:db8:0:1::1") != subjects_of("2001:db8::1")
    assert subjects_of("::ffff:192.0.2.1") == subjects_of("192.0.2.1")
    assert subjects_of("") == []


def test_what_is_long_over_is_cleared_away(monkeypatch: Any) -> None:
    fail(ONE)
    let_pass(days=1)
    monkeypatch.setattr(tries.secrets, "randbelow", lambda _: 0)
    fail(subjects_of("192.0.2.9"), 1)
    assert [*Tries.objects.values_list("subject", flat=True)] == ["address:192.0.2.9"]


def test_a_success_forgives_the_user_and_not_the_address(ann: Any) -> None:
    both = {"X-User-Name": "ann", "X-Password": "wrong"}
    for _ in range(9):
        check_problem(Api(None).get("whoami", **both), 401, "invalid_credentials")
    gate._suspicious_until = 0.0
    assert Api(None).get("whoami", **{**both, "X-Password": "secret"}).status_code == 200
    subjects = [*Tries.objects.values_list("subject", "failures")]
    assert subjects == [("address:127.0.0.1", 9)]


# -- What is refused, and what is not --------------------------------------------------------------


def test_a_blocked_password_is_not_even_hashed(ann: Any, monkeypatch: Any) -> None:
    fail(subjects_of("127.0.0.1"))
    monkeypatch.setattr(gate, "passed", lambda: pytest.fail("somebody hashes"))
    both = {"X-User-Name": "ann", "X-Password": "secret"}
    response = Api(None).get("whoami", **both)
    check_problem(response, 429, "too_many_tries")
    assert 50 <= int(response["Retry-After"]) <= 60


def test_who_was_remembered_goes_on_while_others_try_his_name(ann: Any) -> None:
    good = {"X-User-Name": "ann", "X-Password": "secret"}
    assert Api(None).get("whoami", **good).status_code == 200
    fail(subjects_of("192.0.2.7", user="ann"))
    assert Api(None).get("whoami", **good).status_code == 200
    other = Api(None).get("whoami", **{**good, "X-Password": "other"})
    check_problem(other, 429, "too_many_tries")


def test_good_keys_and_tokens_are_not_refused_for_the_bad_ones_of_others(ann: Any) -> None:
    _, key = create_key("ci", "viewer", ["alpha"])
    fail(subjects_of("127.0.0.1"))
    assert Api(key).get("whoami").status_code == 200
    bearer = {"authorization": f"Bearer {issue(ann).text}"}
    assert Api(None).get("whoami", **bearer).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": BAD_KEY},
        {"x-api-key": "nonsense"},
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Basic nonsense"},
        {"authorization": f"Bearer {BAD_KEY}"},
        {"X-User-Name": "ann", "X-Password": "wrong"},
    ],
)
def test_every_way_to_fail_counts(headers: dict[str, str], ann: Any) -> None:
    for _ in range(10):
        check_problem(Api(None).get("whoami", **headers), 401, "invalid_credentials")
    response = Api(None).get("whoami", **headers)
    check_problem(response, 429, "too_many_tries")
    assert 50 <= int(response["Retry-After"]) <= 60


def test_the_token_route_counts_too(ann: Any) -> None:
    body = {"username": "ann", "password": "wrong"}
    for _ in range(10):
        check_problem(Api(None).post("token", body), 401, "invalid_credentials")
    check_problem(Api(None).post("token", body), 429, "too_many_tries")


def test_no_credential_is_no_failure() -> None:
    for _ in range(12):
        check_problem(Api(None).get("whoami"), 401, "not_authenticated")
    assert Tries.objects.count() == 0


# -- In the words of each surface ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/asyncjobs/v1/tasks",
            {"error": {"code": "rate_limited", "details": {"reason": "too_many_requests"}}},
        ),
        ("/tork/jobs", {"message": "rate limit exceeded"}),
        ("/api/v1/scheduler/jobs", {"status": 429, "code": "too_many_tries"}),
        ("/forge/queue/overview", {"kind": "rate_limited"}),
        ("/jm-api/openapi.json", {"status": 429, "code": "too_many_tries"}),
    ],
)
def test_every_api_says_it_in_its_own_words(path: str, body: Any, alpha: object) -> None:
    fail(subjects_of("127.0.0.1"))
    response = Client().get(path, headers={"x-api-key": BAD_KEY})
    assert response.status_code == 429
    seconds = int(response["Retry-After"])
    assert 50 <= seconds <= 60
    told = response.json()
    for name, value in body.items():
        if isinstance(value, dict):
            assert told[name].items() >= value.items()
        else:
            assert told[name] == value
    if "forge" in path:
        assert told == {"kind": "rate_limited", "retry_after_secs": seconds}


@pytest.mark.parametrize("path", ["/metrics", "/jm-api/metrics"])
def test_scrapers_read_it_as_text(path: str, alpha: object) -> None:
    fail(subjects_of("127.0.0.1"))
    response = Client().get(path, headers={"x-api-key": BAD_KEY})
    assert response.status_code == 429
    assert int(response["Retry-After"]) >= 50
    assert response["Content-Type"].startswith("text/plain")


# -- The login form --------------------------------------------------------------------------------


def sign_in(password: str, client: Client | None = None) -> Any:
    form = {"username": "ann", "password": password, "next": "/admin/"}
    return (client or Client()).post("/admin/login/", form)


def test_the_login_form_counts_as_the_api_does(ann: Any) -> None:
    for _ in range(9):
        assert sign_in("wrong").status_code == 200
    assert sign_in("wrong").status_code == 200
    gate._suspicious_until = 0.0
    refused = sign_in("secret")
    assert refused.status_code == 429
    assert 50 <= int(refused["Retry-After"]) <= 60
    assert b"Too many tries" in refused.content
    both = {"X-User-Name": "ann", "X-Password": "secret"}
    check_problem(Api(None).get("whoami", **both), 429, "too_many_tries")
    let_pass(seconds=61)
    assert sign_in("secret").status_code == 302


def test_failures_at_the_api_close_the_form(ann: Any) -> None:
    fail(subjects_of("192.0.2.1", user="ann"))
    assert sign_in("secret").status_code == 429


def test_signing_in_forgives_the_user(ann: Any) -> None:
    fail(subjects_of("192.0.2.1", user="ann"), 9)
    assert sign_in("secret").status_code == 302
    assert not Tries.objects.filter(subject__startswith="user:").exists()


def test_the_form_too_hashes_one_at_a_time(ann: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("authn.hashing.PATIENCE_SECONDS", 0.05)
    with gate.passed():
        refused = sign_in("secret")
    assert refused.status_code == 429
    assert refused["Retry-After"] == "1"
    assert Tries.objects.count() == 0
    assert sign_in("secret").status_code == 302


# -- Over processes --------------------------------------------------------------------------------


WORKER = """
import sys
import django
django.setup()
from django.test import Client
from authn.hashing import gate
client, headers = Client(), dict(pair.split("=", 1) for pair in sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
statuses = []
for number in range(int(sys.argv[1])):
    statuses.append(client.get("/jm-api/whoami", headers=headers, HTTP_HOST="localhost").status_code)
print(*statuses, flush=True)
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mechanism", ["key", "token", "password"])
def test_three_processes_let_no_more_through_than_one(
    mechanism: str, django_user_model: Any
) -> None:
    django_user_model.objects.create_user("ann", password="secret")
    headers = {
        "key": [f"x-api-key={BAD_KEY}"],
        "token": ["authorization=Bearer a.b.c"],
        "password": ["X-User-Name=ann", "X-Password=wrong"],
    }[mechanism]
    # A cheap hash, or the test would wait for hashes and not for the count.
    env = worker_environment(DJANGO_SETTINGS_MODULE="tests.cheap_hashes")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, "30", *headers],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        outputs = []
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    statuses = [int(word) for output in outputs for word in output.split()]
    assert len(statuses) == 90
    assert {*statuses} == {401, 429}
    assert statuses.count(401) <= 11
    assert statuses.count(401) >= 5


def test_basic_without_a_colon_has_no_name() -> None:
    text = base64.b64encode(b"ann").decode()
    check_problem(
        Api(None).get("whoami", authorization=f"Basic {text}"), 401, "invalid_credentials"
    )
    assert [*Tries.objects.values_list("subject", flat=True)] == ["address:127.0.0.1"]
    assert Tries.objects.get().last_failed_at <= timezone.now() + timedelta(seconds=5)
