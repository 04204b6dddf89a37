"""A cluster now."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from jobs.tallies import count
from tests.factories import make_job, make_node, make_queue

PATH = "/admin/alpha/"


def test_an_idle_cluster_says_so(viewer, alpha):
    page = viewer.get(PATH).content
    assert b"No node is running" in page
    assert b"No failure is on record" in page
    make_node()
    assert b"Nothing to do" in viewer.get(PATH).content


def test_queues_nodes_and_what_is_wrong(viewer, alpha):
    make_node(host="worker-one", pid=5)
    make_queue("mail", is_paused=True)
    make_job(queue="mail", run_at=timezone.now() - timedelta(hours=1))
    page = viewer.get(PATH).content.decode()
    assert "mail: paused by test" in page
    assert 'href="/admin/alpha/queues/"' in page
    assert "worker-one:5" in page


def test_the_five_oldest_queues_and_the_oldest_job_that_runs(viewer, operator, alpha):
    for age in range(7):
        make_job(queue=f"aged-{age}", run_at=timezone.now() - timedelta(minutes=age + 1))
    old = make_job("running", type="old", started_at=timezone.now() - timedelta(hours=1))
    make_job("running", type="young")
    page = viewer.get(PATH).content.decode()
    table = page[page.index("Oldest queues") : page.index("</table>")]
    assert [name for name in range(7) if f"aged-{name}<" in table] == [2, 3, 4, 5, 6]
    assert f'<a href="/admin/alpha/jobs/{old.pk}/">old</a>' in page
    assert "/pause/" not in page
    # Whoever may do something about it does so here.
    assert "/admin/alpha/queues/aged-6/pause/" in operator.get(PATH).content.decode()


def test_failures_are_told_of_as_part_of_the_same_jobs_everywhere(viewer, alpha):
    events = (("failed", 20), ("succeeded", 5), ("cancelled", 10), ("skipped", 5))
    count("cluster-alpha", [("default", "t", event, number) for event, number in events])
    for path in (PATH, f"{PATH}card/"):
        page = viewer.get(path).content.decode()
        assert "20 of 40 jobs failed in the last hour." in page
        assert "40 jobs finished in the last hour, 20 of them failed." in page


def test_it_asks_at_most_fifteen_times(viewer, alpha, queries):
    for n in range(150):
        make_job(queue=f"q{n % 10}")
    for _ in range(101):
        make_job(queue="deep")
    make_node()
    with queries() as asked:
        viewer.get(PATH)
    assert len(asked) <= 15, "\n".join(asked)


def test_the_palette_finds_jobs_queues_pages_and_clusters(viewer, alpha):
    job = make_job(queue="mailing", type="email:new")
    path = "/admin/alpha/search/?extended=1&s="
    assert f"/admin/alpha/jobs/{job.pk}/" in viewer.get(f"{path}{job.pk}").content.decode()
    assert 'href="/admin/alpha/queues/mailing/"' in viewer.get(f"{path}mail").content.decode()
    assert "/admin/alpha/failures/" in viewer.get(f"{path}fail").content.decode()
    for nonsense in ("", "%00", "x" * 5000, "no such thing"):
        assert viewer.get(path + nonsense).status_code == 200


def test_the_palette_finds_nodes_and_what_can_be_done(viewer, operator, alpha):
    node = make_node(host="worker-one", pid=77)
    make_queue("mail")
    make_queue("slow", is_paused=True)
    path = "/admin/alpha/search/?s="

    def found(client, text: str) -> str:
        return client.get(path + text).content.decode()

    for text in ("worker", "worker-one:77"):
        assert f"/admin/alpha/nodes/#node-{node.pk}" in found(viewer, text)
    assert "#node-" not in found(viewer, "worker-one:78")
    deeds = {
        "pause mail": "queues/mail/pause/",
        "resume": "queues/slow/",
        "drain worker": f"nodes/{node.pk}/drain/",
        "new sched": "schedules/new/",
    }
    for text, address in deeds.items():
        assert f'href="/admin/alpha/{address}"' in found(operator, text), text
        assert f'href="/admin/alpha/{address}"' not in found(viewer, text), text
    assert "Pause slow" not in found(operator, "pause")


def test_the_palette_of_the_fleet_finds_clusters(viewer):
    assert 'href="/admin/beta/"' in viewer.get("/admin/search/?s=bet").content.decode()


def test_what_the_palette_found_is_not_kept(viewer, alpha):
    path = "/admin/{}/search/?extended=1&s=mail"
    make_queue("mail-of-alpha")
    assert b"mail-of-alpha" in viewer.get(path.format("alpha")).content
    assert b"mail-of-alpha" not in viewer.get(path.format("beta")).content
    make_queue("mail-two")
    assert b"mail-two" in viewer.get(path.format("alpha")).content


def test_the_palette_shows_no_cluster_that_one_may_not_see(sign_in):
    assert b"alpha" not in sign_in("viewer", "beta").get("/admin/search/?s=alph").content
