"""What is shipped for Prometheus and Grafana: it parses, and speaks of nothing that no scrape has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from django.test import Client
from django.utils import timezone

from clusters.models import NodeStatus
from jobs.models import Schedule, Tally, UpkeepDuty
from jobs.states import State
from tests.api.conftest import Api
from tests.factories import make_job, make_node
from tests.jobs.prometheus.scraped import Scraped
from tests.jobs.schedule_cases import make_schedule
from tests.test_house import ROOT, check_management_command

ALERTS = ROOT / "ops" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "ops" / "grafana" / "yardmaster.json"
RUNBOOKS = ROOT / "docs" / "runbooks"
NAMES = {
    "ClusterDown", "NoLiveNode", "NodeLost", "QueueStuck", "QueueForgotten", "OldestRunning",
    "FailureRatio", "ScheduleLate", "ClockSkew", "UpkeepStalled",
}  # fmt: skip

Series = dict[str, set[str]]


@pytest.fixture
def told(alpha: object, viewer: Api) -> Series:
    """The labels of every series of a real scrape of a cluster in which all sorts of things are."""
    now = timezone.now()
    for state in (State.READY, State.RUNNING, State.SCHEDULED):
        make_job(state, queue="mail")
    make_node(clock_skew_seconds=0.1)
    for event in ("started", "succeeded", "failed"):
        Tally.objects.create(minute=now, queue="mail", type="a", event=event, bucket=3, count=1)
    schedule = make_schedule()
    Schedule.objects.filter(pk=schedule.pk).update(next_due_at=now, next_run_at=now)
    UpkeepDuty.objects.create(name="prune", last_finished_at=now - timedelta(seconds=5))
    found: Series = {}
    for name, labels in Scraped(viewer.get("metrics").content).samples:
        # Prometheus adds two of its own.
        found.setdefault(name, {"instance", "job"}).update(dict(labels))
    return found


# -- Expressions -----------------------------------------------------------------------------------


def selectors(node: Any) -> Iterator[Any]:
    """The selectors of series anywhere in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    for part in ("expr", "lhs", "rhs", "param"):
        if (below := getattr(node, part, None)) is not None and not isinstance(below, str):
            yield from selectors(below)
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


def groupings(node: Any) -> Iterator[str]:
    """The labels that parts of an expression are grouped, matched or joined by."""
    for what in (getattr(node, "modifier", None),):
        if what is None:
            continue
        for labels in (what, getattr(what, "matching", None), getattr(what, "card", None)):
            yield from getattr(labels, "labels", None) or ()
    for part in ("expr", "lhs", "rhs"):
        if (below := getattr(node, part, None)) is not None:
            yield from groupings(below)
    for argument in getattr(node, "args", None) or ():
        yield from groupings(argument)


def check_expression(text: str, told: Series) -> None:
    tree = promql_parser.parse(text)
    found = [*selectors(tree)]
    assert len(found) == len(re.findall(r"\byardmaster_\w+", text)), text
    labels: set[str] = set()
    for one in found:
        assert one.name in told, f"{one.name} is in no scrape"
        labels |= told[one.name]
        for matcher in one.matchers.matchers:
            assert matcher.name in told[one.name], f"{one.name} has no label {matcher.name}"
    by = {*groupings(tree)}
    assert by <= labels, f"no label {by - labels} in {text}"
    # As a second look: whatever stands in the brackets of `by` and `on` was found.
    written = {
        name.strip()
        for names in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", text)
        for name in names.split(",")
    }
    assert written == by, text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("yardmaster_queue_dept > 1", "is in no scrape"),
        ('yardmaster_nodes{state="live"} == 0', "has no label state"),
        ("max by (node) (yardmaster_cluster_up)", "no label"),
        ("sum(rate(yardmaster_jobs_finished[5m]))", "is in no scrape"),
        ("yardmaster_cluster_up and on (nod) yardmaster_nodes", "no label"),
        (
            "histogram_quantile(0.9, sum by (el) (rate(yardmaster_job_run_seconds_bucket[5m])))",
            "el",
        ),
    ],
)
def test_a_wrong_name_anywhere_is_found(told: Series, text: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_expression(text, told)


# -- Alerts ----------------------------------------------------------------------------------------


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_the_alerts_are_these() -> None:
    assert {rule["alert"] for rule in alerts()} == NAMES
    assert len(alerts()) == len(NAMES)


@pytest.mark.once
@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any], told: Series) -> None:
    check_expression(rule["expr"], told)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "runbook_url", "page"}
    runbook = ROOT / rule["annotations"]["runbook_url"]
    assert runbook.parent == RUNBOOKS
    assert runbook.read_text().startswith(f"# {rule['alert']}\n")


def test_there_is_no_runbook_without_its_alert() -> None:
    named = {rule["annotations"]["runbook_url"] for rule in alerts()}
    assert {str(path.relative_to(ROOT)) for path in RUNBOOKS.iterdir()} == named


@pytest.mark.once
@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_the_page_of_an_alert_is_there_and_takes_its_filter(
    rule: dict[str, Any], admin_client: Client, alpha: object
) -> None:
    prefix, _, path = rule["annotations"]["page"].partition(" }}/")
    assert prefix == "{{ $externalLabels.yardmaster"
    labels = {"cluster": "alpha", "queue": "mail", "schedule": "nightly"}
    for name, value in labels.items():
        path = re.sub(rf"{{{{ \$labels\.{name}(?: \| urlquery)? }}}}", value, path)
    assert "{" not in path
    make_node(NodeStatus.LIVE)
    response = admin_client.get(f"/{path}")
    assert response.status_code == 200
    if "?" in path:
        # A filter that the page does not know is refused; one that it knows is shown.
        assert admin_client.get(f"/{path}&nonsense=1").status_code == 400


# -- The dashboard ---------------------------------------------------------------------------------


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def filled(text: str) -> str:
    """An expression with Grafana's variables as it would fill them in."""
    text = text.replace("$__rate_interval", "5m").replace("$cluster", ".*").replace("$queue", ".*")
    assert "$" not in text
    return text


@pytest.mark.once
@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any], told: Series) -> None:
    assert panel["targets"]
    assert panel["description"]
    for target in panel["targets"]:
        check_expression(filled(target["expr"]), told)
        assert target["datasource"]["uid"] == "${datasource}"
        tree = promql_parser.parse(filled(target["expr"]))
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= {*groupings(tree)}


def test_panels_have_a_place_and_a_number_of_their_own() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_variables_are_read_from_what_there_is(told: Series) -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "cluster", "queue"}
    for name in ("cluster", "queue"):
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variables[name]["query"]["query"])
        assert match
        check_expression(filled(match[1]), told)
        assert match[2] == name
        assert name in told[re.match(r"\w+", match[1])[0]]  # type: ignore[index]


def test_every_metric_is_looked_at(told: Series) -> None:
    """A metric that nobody looks at is work for nothing."""
    texts = DASHBOARD.read_text() + ALERTS.read_text()
    used = {name for name in told if re.search(rf"\b{name}\b", texts)}
    unused = {_metric(name) for name in told.keys() - used}
    assert unused <= {_metric(name) for name in used}


def _metric(series: str) -> str:
    return re.sub(r"_(bucket|sum|count|created)\Z", "", series)


# -- Runbooks, and Prometheus' own checks ----------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RUNBOOKS.iterdir()), ids=lambda path: path.stem)
def test_the_commands_of_a_runbook_are_real(path: Path) -> None:
    text = path.read_text()
    found = re.findall(r"manage\.py ([a-z][^\n#`]*)", text)
    assert found or path.stem == "clock-skew"
    for words in found:
        check_management_command(words.split())


def promtool(*arguments: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules() -> None:
    assert f"{len(NAMES)} rules found" in promtool("check", "rules", str(ALERTS))


def test_the_alerts_come_when_they_are_due_and_not_before() -> None:
    tests = ROOT / "tests" / "ops" / "alerts.test.yaml"
    tested = set(re.findall(r"alertname: (\w+)", tests.read_text()))
    assert tested == NAMES
    assert "SUCCESS" in promtool("test", "rules", str(tests))


def test_prometheus_takes_the_text_of_a_scrape(told: Series, viewer: Api) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    text = viewer.get("metrics").content
    done = subprocess.run([found, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
