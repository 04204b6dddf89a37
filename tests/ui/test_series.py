"""What happened over time: charts with their table, and what people changed."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.models import Tally
from tests.factories import make_node, make_queue

PATH = "/admin/alpha/series/"
FRAGMENT = {"HX-Request": "true", "UI-Version": ""}


def tally(event: str, count: int, *, age: timedelta = timedelta(), **columns) -> None:
    minute = (timezone.now() - age).replace(second=0, microsecond=0)
    defaults = {"queue": "mail", "type": "letter"}
    Tally.objects.create(minute=minute, event=event, count=count, **{**defaults, **columns})


def a_day() -> None:
    tally("enqueued", 30)
    tally("started", 25, bucket=20)
    tally("succeeded", 20, bucket=12)
    tally("failed", 5, bucket=40, type="report")
    tally("succeeded", 7, bucket=12, age=timedelta(hours=3), queue="slow")


def shown(client, path: str = PATH) -> str:
    response = client.get(path, headers=FRAGMENT)
    assert response.status_code == 200
    return response.content.decode()


def drawn(html: str) -> dict:
    found = re.search(r'<script id="series-data" type="application/json">(.*?)</script>', html)
    assert found
    return json.loads(found[1])


def test_the_chart_and_its_table_tell_the_same(viewer, alpha):
    a_day()
    html = shown(viewer)
    data = drawn(html)
    finished, enqueued, failed = data["throughput"]
    assert (sum(finished), sum(enqueued), sum(failed)) == (25, 30, 5)
    assert len(data["times"]) == len(finished) == len(data["wait"][0]) <= 500
    table = html[html.index("<details") : html.index("</details>")]
    [row] = re.findall(r"<tr>(?!<th)(.*?)</tr>", table, re.DOTALL)
    assert re.findall(r'ui-num">(.*?)</td>', row)[:3] == ["25", "30", "5"]
    # Waits and runs are of the same histograms as everywhere.
    [p50] = [value for value in data["wait"][0] if value is not None]
    assert 0.026 < p50 < 0.033


@pytest.mark.parametrize(("span", "total"), [("1h", 25), ("6h", 32), ("24h", 32), ("7d", 32)])
def test_each_range_has_at_most_500_points(viewer, alpha, span, total):
    a_day()
    data = drawn(shown(viewer, f"{PATH}?range={span}"))
    assert len(data["times"]) <= 500
    minutes = data["step"] / 60
    assert sum(data["throughput"][0]) * minutes == pytest.approx(total, abs=0.5)


@pytest.mark.once
@pytest.mark.parametrize("path", [PATH, "/admin/alpha/", "/admin/alpha/queues/default/"])
@pytest.mark.parametrize("nonsense", ["forever", "", "1H", "%00", "1h'"])
def test_a_range_that_there_is_not_is_refused(viewer, alpha, path, nonsense):
    assert viewer.get(f"{path}?range={nonsense}").status_code == 400


def test_the_range_is_in_the_address(viewer, alpha):
    page = viewer.get("/admin/alpha/?range=6h").content.decode()
    assert 'hx-get="/admin/alpha/series/?range=6h"' in page
    assert '<a href="?range=6h" aria-current="true">6 hours</a>' in page
    assert '<a href="?range=7d">7 days</a>' in page


def test_of_one_queue_only_its_own(viewer, alpha):
    a_day()
    make_queue("slow")
    html = shown(viewer, "/admin/alpha/queues/slow/series/?range=6h")
    assert sum(drawn(html)["throughput"][0]) * 5 == pytest.approx(7, abs=0.5)
    assert "queue=slow" in html
    assert viewer.get("/admin/alpha/queues/nowhere/series/").status_code == 404


def test_what_fails_most_and_what_is_slowest(viewer, alpha):
    a_day()
    html = shown(viewer)
    failing, slowest = html.split("Slowest types")
    failing = failing[failing.index("Most failing types") :]
    assert "report" in failing
    assert "letter" not in failing
    assert slowest.index("report") < slowest.index("letter")
    assert "state=failed&amp;type=report" in failing


def test_what_people_changed_is_marked_on_the_axis(sign_in, operator, alpha):
    a_day()
    make_node(version="2.0.0")
    make_queue("mail")
    operator.post("/admin/alpha/queues/mail/pause/", {"reason": "the server moves"})
    html = shown(operator)
    assert "Queue mail paused" in html
    assert "by user:operator-1: the server moves" in html
    assert "Nodes of 2.0.0" in html
    assert sorted(sign for _, sign in drawn(html)["marks"]) == ["deed", "version"]
    # Who did it and why is the audit's to tell.
    html = shown(sign_in("viewer"))
    assert "Queue mail paused" in html
    assert "user:operator-1" not in html
    assert "the server moves" not in html
    assert AuditEntry.objects.count() == 1


def test_a_version_that_was_there_before_is_no_news(viewer, alpha):
    a_day()
    make_node(version="1.0.0", started_at=timezone.now() - timedelta(days=1))
    make_node(version="1.0.0")
    assert "Nodes of" not in shown(viewer)


def test_a_quiet_cluster_says_what_will_be_there(viewer, alpha):
    html = shown(viewer)
    assert "Nothing happened in the last hour" in html
    assert "series-data" not in html


def test_it_asks_at_most_fifteen_times(operator, alpha, queries):
    a_day()
    for path in (PATH, f"{PATH}?range=7d", "/admin/alpha/queues/default/series/"):
        with queries() as asked:
            shown(operator, path)
        assert len(asked) <= 15, "\n".join(asked)


def test_no_text_leaves_the_data_of_the_chart(viewer, alpha):
    tally("failed", 1, type="</script><script>alert(1)</script>")
    html = shown(viewer)
    assert html.count("</script>") == 1


def test_a_stretch_of_time_can_be_typed_as_well(viewer, alpha):
    a_day()
    html = shown(viewer, "/admin/alpha/queues/default/series/?range=6h")
    assert "created_after" not in html
    html = shown(viewer, f"{PATH}?range=6h")
    form = html[html.index("<form") : html.index("</form>")]
    times = dict(re.findall(r'name="(created_\w+)" value="([^"]+)"', form))
    assert set(times) == {"created_after", "created_before"}
    assert viewer.get("/admin/alpha/jobs/", times).status_code == 200
