"""Every story once more by keyboard alone: no mouse, and where the focus is can always be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from authn.keys import create_key
from authn.models import AccessAuditEntry, ApiKey
from clusters.binding import cluster_bound
from clusters.models import AuditEntry, Node
from jobs.models import BulkOperation, Job, Queue
from tests.api.test_failures import make_failure
from tests.factories import make_job, make_node, make_queue
from tests.jobs.schedule_cases import hours_ago, keep_away_from_the_turn, make_schedule, put_back
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import Visit, chromium, program, visit
from tests.ui.test_browser import _answers, _people, in_thread, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]
GROUP = 7
# From the top of a page; with the way around the menu nothing is farther away.
MOST_STOPS = 40

# What has the focus: what it is called, and whether one can see that it has it.
_STOP = """() => {
  const e = document.activeElement, said = e.cloneNode(true);
  for (const icon of said.querySelectorAll("[aria-hidden=true]")) icon.remove();
  const label = e.labels && e.labels[0] ? e.labels[0].innerText : "";
  const called = e.getAttribute("aria-label") || label || said.textContent || e.value || e.name || "";
  const looks = () => {
    const style = getComputedStyle(e);
    return `${style.outlineStyle} ${style.outlineWidth} ${style.boxShadow} ${style.borderColor}`;
  };
  // The same thing without the focus, which comes back to it.
  const focused = looks();
  e.blur();
  const differs = focused !== looks();
  e.focus({focusVisible: true});
  return [called.trim().replace(/\\s+/g, " "), differs, e.tagName];
}"""


class Keys:
    """Somebody without a mouse."""

    def __init__(self, visitor: Visit) -> None:
        self.visitor, self.page = visitor, visitor.page
        self.keyboard = visitor.page.keyboard

    def open(self, path: str) -> Keys:
        """As a link of an alert does."""
        self.visitor.go(path)
        return self

    def to(self, name: str) -> Keys:
        """Go from stop to stop until the one that is called so, or begins so."""
        passed = []
        for _ in range(MOST_STOPS):
            self.keyboard.press("Tab")
            called, is_seen, tag = self.page.evaluate(_STOP)
            if tag != "BODY":
                assert is_seen, f"{called or tag} has the focus and does not look so"
            if called.startswith(name):
                return self
            passed.append(called)
        raise AssertionError(f"no way to {name!r}: {passed}")

    def press(self, key: str = "Enter") -> Keys:
        self.keyboard.press(key)
        return self

    def write(self, text: str) -> Keys:
        self.keyboard.type(text)
        return self

    def around_the_menu(self) -> Keys:
        """The first stop of every page is the way past its menu."""
        return self.to("Skip to").press()

    def is_asked_for(self, name: str) -> Keys:
        """The form has come, and begins where it is to be filled in."""
        self.page.wait_for_selector(f"[name={name}]:focus")
        return self

    def sees(self, text: str) -> Keys:
        self.visitor.sees(text)
        return self


def _rows() -> dict[str, Any]:
    keep_away_from_the_turn()
    create_key("ci", "operator", ("alpha",))
    with cluster_bound("alpha"):
        make_queue("mail")
        group = make_failure(GROUP)
        for _ in range(12):
            make_job("failed", fingerprint=group.fingerprint, queue="mail")
        late = make_schedule(name="send the letters")
        put_back(late, hours_ago(0))
        node = make_node(host="worker-one")
        return {"group": group.fingerprint, "late": str(late.pk), "node": str(node.pk)}


@pytest.fixture
def yard(transactional_db: None) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    program()
    port = free_port()
    with ExitStack() as stack:
        _people()
        made = _rows()
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=worker_environment()))
        until(lambda: _answers(port), 120)
        yield stack.enter_context(chromium()), f"http://127.0.0.1:{port}", made


def test_every_story_without_a_mouse(yard: Any) -> None:
    browser, address, made = yard
    with visit(browser, address) as visitor:
        visitor.page.set_default_timeout(20_000)
        keys = Keys(visitor).open("/admin/login/?next=/admin/")
        _sign_in(keys, "root")
        visitor.page.wait_for_url(f"{address}/admin/")
        for story in (_switched, _all_retried, _paused, _drained, _late_run, _revoked):
            story(keys, made)
            assert visitor.complaints == [], story.__name__


def _sign_in(keys: Keys, name: str) -> None:
    keys.to("Username").write(name).to("Password").write("correct horse").press()


def _switched(keys: Keys, made: dict[str, Any]) -> None:
    """The theme's own menus, which are made for mice: another cluster, and the way out."""
    keys.open("/admin/alpha/").to("alpha").press().to("beta").press()
    keys.page.wait_for_url("**/admin/beta/")
    keys.to("R root").press("Space")
    keys.page.wait_for_selector("#logout-form button")
    keys.page.locator("#logout-form button").wait_for(state="visible")
    names = keys.page.get_by_role("link", name="Now", exact=True)
    # The word of its icon is none that is read out.
    assert names.count() >= 1


def _last_deed() -> tuple[str, str, str]:
    def read() -> tuple[str, str, str]:
        with cluster_bound("alpha"):
            entry = AuditEntry.objects.order_by("-at", "-id")[0]
            return entry.verb, entry.target_id, entry.reason

    found: tuple[str, str, str] = in_thread(read)
    return found


def _on_alpha(read: Callable[[], Any]) -> Any:
    def bound() -> Any:
        with cluster_bound("alpha"):
            return read()

    return in_thread(bound)


def _all_retried(keys: Keys, made: dict[str, Any]) -> None:
    keys.open(f"/admin/alpha/failures/{made['group']}/").around_the_menu().to("Retry all").press()
    keys.is_asked_for("reason").write("the server is back").press()
    keys.page.wait_for_url("**/bulk-operations/*/")
    operation = _on_alpha(lambda: BulkOperation.objects.get())
    assert (operation.reason, operation.filter["failure"]) == ("the server is back", made["group"])
    assert _last_deed()[0] == "bulk_operations.request"


def _paused(keys: Keys, made: dict[str, Any]) -> None:
    # From anywhere, by the keys that lead to the queues.
    keys.open("/admin/alpha/").press("g").press("q")
    keys.page.wait_for_url("**/admin/alpha/queues/")
    keys.around_the_menu().to("Pause… mail").press()
    keys.is_asked_for("reason").write("the server moves").press().sees("Queue mail is paused.")
    assert _on_alpha(lambda: Queue.objects.get(name="mail").is_paused)
    assert _last_deed() == ("queues.pause", "mail", "the server moves")


def _drained(keys: Keys, made: dict[str, Any]) -> None:
    keys.open("/admin/alpha/nodes/").around_the_menu().to("Drain… worker-one").press()
    keys.is_asked_for("reason").write("bad release").press().sees("takes nothing new")
    assert _on_alpha(lambda: Node.objects.get(pk=made["node"]).drain_requested_at)
    assert _last_deed() == ("nodes.drain", made["node"], "bad release")


def _late_run(keys: Keys, made: dict[str, Any]) -> None:
    keys.open("/admin/alpha/schedules/?name=send%20the%20letters").around_the_menu()
    keys.to("send the letters").press()
    keys.page.wait_for_url(f"**/schedules/{made['late']}/")
    keys.around_the_menu().to("Run now").press().sees("runs now")
    assert _on_alpha(lambda: Job.objects.filter(schedule_id=made["late"]).count()) == 1
    assert _last_deed() == ("schedules.trigger", made["late"], "")


def _revoked(keys: Keys, made: dict[str, Any]) -> None:
    keys.open("/admin/governance/keys/").around_the_menu().to("Revoke").press()
    keys.is_asked_for("reason").write("it is in a log").press().sees("revoked")
    told = in_thread(lambda: AccessAuditEntry.objects.order_by("-id")[0])
    assert (told.verb, told.target_id, told.reason) == ("keys.revoke", "ci", "it is in a log")
    assert in_thread(lambda: ApiKey.objects.get().revoked_at)
