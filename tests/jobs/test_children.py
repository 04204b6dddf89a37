from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from clusters.policy import ClusterPolicy
from jobs.engine import children
from jobs.engine.child import Child
from jobs.engine.children import Children
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown
from jobs.engine.estimates import Estimates
from jobs.engine.frames import MAX_FRAME, BrokenPeer, Channel, encode, read_frame
from jobs.engine.held import News
from jobs.engine.marks import SUCCEEDED, Marks, shared_file
from jobs.engine.template import Forked
from jobs.executors import IO, PROCESS
from jobs.states import Outcome

POLICY = ClusterPolicy()


def claimed(number: int, type_name: str = "demo:noop") -> Claimed:
    job_id = f"00000000-0000-0000-0000-{number:012d}"
    return Claimed(job_id, 1, "python", type_name, "default", 1, 3, 0, "retry", 30.0, "{}", None)


class FakeTemplate:
    """Hands out pipes whose other end the test holds: what a child does is said by the test."""

    def __init__(self) -> None:
        self.peers: list[tuple[socket.socket, Marks]] = []

    def fork(self, pool: str, policy: ClusterPolicy) -> Forked:
        ours, theirs = socket.socketpair()
        descriptor = shared_file()
        self.peers.append((theirs, Marks(os.dup(descriptor))))
        # No process of ours has this number, so a signal to it goes nowhere.
        return Forked(2**22 + len(self.peers), ours, Marks(descriptor))

    def exits(self) -> dict[int, int]:
        return {}


@pytest.fixture
def template():
    template = FakeTemplate()
    yield template
    for sock, marks in template.peers:
        sock.close()
        marks.close()


@pytest.fixture
def two(template):
    crew = Children(template, 2, 0)  # type: ignore[arg-type]
    crew.spawn_missing(POLICY)
    yield crew
    for child in crew.all:
        child.channel.close()
        child.marks.close()


def test_a_node_that_knows_nothing_takes_one_job_a_child(two):
    assert two.free()[PROCESS] == 2
    two.give([claimed(1)], 5.0)
    assert two.free()[PROCESS] == 1


def test_short_jobs_are_taken_by_what_begins_within_a_moment(two):
    two.estimates.learn("python", "test:job", [0.01])
    assert two.free()[PROCESS] == 2 * 20
    two.estimates.learn("python", "test:job", [0.000001])
    assert two.free()[PROCESS] <= 2 * children.IN_HAND_JOBS


def test_one_long_run_makes_a_node_careful_at_once():
    estimates = Estimates()
    for _ in range(100):
        estimates.learn("python", "test:job", [0.001])
    estimates.learn("python", "slow", [10.0])
    assert estimates.mix is not None and estimates.mix > 1.0


def test_nothing_is_put_behind_a_child_that_is_behind(two, template):
    two.estimates.learn("python", "test:job", [0.001])
    two.give([claimed(1)], 5.0)
    template.peers[0][1].begin(0, countdown() - 3.0)
    assert two.free()[PROCESS] == 200
    two.give([claimed(n) for n in range(2, 12)], 5.0)
    assert [len(child.held) for child in two.all] == [1, 10]


def test_what_waits_too_long_is_recalled(two, template):
    two.estimates.learn("python", "test:job", [0.001])
    first = two.all[0]
    first.give([(claimed(n), 0.001) for n in range(5)], 5.0)
    peer, marks = template.peers[0]
    marks.begin(0, countdown() - 2.0)
    two.enforce(POLICY)
    assert "run" in read_frame(peer)
    assert read_frame(peer) == {"recall": True}
    peer.sendall(encode({"recalled": [1, 2, 3, 4]}))
    news = News("node")
    first.read(news)
    assert [held.seq for held in news.returned] == [1, 2, 3, 4]
    assert list(first.held) == [0]


def test_a_dead_childs_jobs_are_told_apart_by_their_marks(two, template):
    child: Child = two.all[0]
    child.give([(claimed(n), 0.001) for n in range(4)], 5.0)
    peer, marks = template.peers[0]
    marks.begin(0, countdown())
    marks.end(0, SUCCEEDED)
    begun_at = countdown()
    marks.begin(1, begun_at)
    child.held[1].given_at -= 10.0
    peer.close()
    news = News("node")
    child.read(news)
    assert child.is_dead
    child.is_dead = False
    child.bury(news)
    outcomes = {held.seq: report for held, report in news.reports}
    assert [success.id for success in news.successes] == [claimed(0).id]
    assert outcomes[1].outcome == Outcome.LOST and outcomes[1].crashed
    assert outcomes[1].started_at == begun_at
    assert [held.seq for held in news.returned] == [2, 3]
    two.all.remove(child)


@pytest.mark.parametrize(
    "message",
    [
        [],
        {"results": [[]]},
        {"results": 7},
        {"logs": [[0]]},
        {"progress": {"x": 1}},
        {"results": [[0, "ok", 2.0, 1.0]]},
        {"results": [[0, "ok", 1.0, 1e300]]},
        {"results": [[0, "ok", 1.0, float("nan")]]},
        {"results": [[0, "ok", 1.0, 2.0, {"no": "text"}]]},
        {"results": [[0, "ok", 1.0, 2.0, "\ud800"]]},
        {"results": [[0, "error", 1.0, 2.0, None, 7, None, None, 0, None, 0, 0]]},
        {"results": [[0, "error", 1.0, 2.0, None, "E", "e", None, 0, "soon", 0, 1]]},
        {"results": [[0, "error", 1.0, 2.0, None, "E", "e", None, 0, float("nan"), 0, 1]]},
        {"logs": [[0, "now", "log", None, "text"]]},
        {"logs": [[0, 1.0, "log", None, 7]]},
        {"logs": [[0, 1.0, "log", None, "\udfff"]]},
        {"progress": {"0": [101, ""]}},
        {"progress": {"0": [float("nan"), ""]}},
        {"progress": {"0": [50, None, 1]}},
    ],
)
def test_a_child_that_talks_nonsense_is_ended_and_its_node_is_not(two, template, message):
    child: Child = two.all[0]
    child.give([(claimed(1), 0.001)], 5.0)
    template.peers[0][0].sendall(encode(message))
    news = News("node")
    child.read(news)
    assert child.is_dead
    assert not (news.successes or news.reports or news.logs or news.progress)
    assert list(child.held) == [0]


def test_large_payloads_travel_in_frames_of_bounded_size(two, template):
    child: Child = two.all[0]
    large = claimed(0)._replace(payload='"' + "x" * 1_000_000 + '"')
    child.give([(large._replace(id=claimed(n).id), 0.001) for n in range(10)], 5.0)
    peer = template.peers[0][0]
    sizes, jobs = [], 0
    while jobs < 10:
        reader = threading.Thread(target=lambda: sizes.append(read_frame(peer)))
        reader.start()
        while reader.is_alive():
            child.channel.flush()
        jobs += len(sizes[-1]["run"])
    assert [len(frame["run"]) for frame in sizes] == [4, 4, 2]


def test_large_payloads_make_the_next_claim_smaller(two):
    two.estimates.learn("python", "test:job", [0.0001])
    before = two.free()[PROCESS]
    two.give([claimed(n)._replace(payload="x" * 4_000_000) for n in range(2)], 5.0)
    assert two.free()[PROCESS] <= children.CLAIM_BYTES // 4_000_000 < before


def test_a_child_that_has_stopped_between_jobs_is_replaced(two, monkeypatch):
    child: Child = two.all[0]
    child.give([(claimed(1), 0.001)], 5.0)
    signals: list[int] = []
    monkeypatch.setattr(child, "signal", signals.append)
    two.enforce(POLICY)
    assert signals == []
    child._busy_at -= children.IDLE_STUCK_SECONDS + 1
    two.enforce(POLICY)
    assert signals == [signal.SIGKILL]


def test_a_child_that_does_not_read_never_blocks_its_node():
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send(encode({"run": ["x" * 5_000_000]}))
    assert channel.has_backlog
    received = bytearray()
    while channel.has_backlog:
        received += theirs.recv(1 << 20)
        channel.flush()
    channel.close()
    theirs.close()


def test_a_frame_without_bounds_is_refused():
    ours, theirs = socket.socketpair()
    theirs.sendall((MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(BrokenPeer):
        Channel(ours).receive()
    ours.close()
    theirs.close()


def test_children_that_end_with_their_job_are_replaced_at_once(two, template):
    """What was cancelled or out of time takes its child along, however young that is."""
    news = News("node")
    for child, (sock, marks) in zip(list(two.all), list(template.peers), strict=True):
        child.give([(claimed(child.pid), 0.1)], 5.0)
        marks.begin(0, countdown())
        sock.sendall(encode({"results": [[0, "cancelled", 1.0, 2.0]]}))
        sock.shutdown(socket.SHUT_WR)
        child.read(news)
        child.read(news)  # what it said, and then that it has gone
    two.bury(list(two.all), news)
    assert len(news.reports) == 2
    assert len(two.spawn_missing(POLICY)) == 2


def test_children_that_die_without_having_worked_are_replaced_ever_more_slowly(two, template):
    news = News("node")
    for child, (sock, _) in zip(list(two.all), list(template.peers), strict=True):
        sock.close()
        child.read(news)
    two.bury(two.find_dead(news), news)
    assert two.spawn_missing(POLICY) == []


def test_a_job_that_makes_no_progress_is_out_of_time(two, template):
    child: Child = two.all[0]
    child.give([(claimed(1)._replace(progress_timeout_seconds=2.0), 0.001)], 5.0)
    peer, marks = template.peers[0]
    assert "run" in read_frame(peer)
    marks.begin(0, countdown() - 2.5)
    peer.sendall(encode({"progress": {"0": [50, "half"]}}))
    child.read(News("node"))
    two.enforce(POLICY)
    assert child.held[0].asked is None
    child.held[0].progress_at -= 2.5
    two.enforce(POLICY)
    assert child.held[0].asked == Outcome.TIMEOUT
    assert read_frame(peer) == {"cancel": [0]}
    peer.sendall(encode({"results": [[0, "cancelled", 1.0, 2.0]]}))
    news = News("node")
    child.read(news)
    (report,) = [report for _, report in news.reports]
    assert (report.outcome, report.error) == (Outcome.TIMEOUT, "made no progress for 2 s")


def test_the_beginning_that_a_dead_child_claims_is_taken_only_where_it_can_be(two, template):
    child: Child = two.all[0]
    child.give([(claimed(1), 0.001)], 5.0)
    peer, marks = template.peers[0]
    marks.begin(0, countdown() + 1000.0)
    peer.close()
    news = News("node")
    child.bury(news)
    ((held, report),) = news.reports
    assert report.started_at == held.given_at
    two.all.remove(child)


def test_what_a_child_has_grown_is_measured_and_nothing_is_given_to_it(two, monkeypatch):
    grown = {two.all[0].pid: POLICY.child_memory_bytes + 1, two.all[1].pid: 0}
    monkeypatch.setattr(children, "private_bytes", grown.__getitem__)
    two.watch(POLICY, News("node"))
    assert [child.takes_jobs for child in two.all] == [False, True]
    assert two.free()[PROCESS] == 1
    two.give([claimed(1)], 5.0)
    assert [len(child.held) for child in two.all] == [0, 1]
    signals: list[int] = []
    monkeypatch.setattr(two.all[0], "signal", signals.append)
    two.enforce(POLICY)
    assert signals == [signal.SIGKILL]


def test_a_hog_alone_is_charged(two, template, monkeypatch):
    child: Child = two.all[0]
    child.give([(claimed(n), 0.001) for n in range(3)], 5.0)
    peer, marks = template.peers[0]
    marks.begin(0, countdown())
    limit = 2 * POLICY.child_memory_bytes
    grown = {child.pid: limit, two.all[1].pid: 0}
    monkeypatch.setattr(children, "private_bytes", grown.__getitem__)
    two.watch(POLICY, News("node"))
    assert child.culprit is None
    two._next_watch_at = 0.0
    grown[child.pid] += 1
    two.watch(POLICY, News("node"))
    peer.close()
    news = News("node")
    child.bury(news)
    ((held, report),) = news.reports
    assert (held.seq, report.crashed, report.error_type) == (0, True, "LimitExceeded")
    assert "are allowed" in report.error
    assert [held.seq for held in news.returned] == [1, 2]
    two.all.remove(child)


def test_a_child_is_gone_when_the_template_says_so(two, template, monkeypatch):
    child: Child = two.all[0]
    template.peers[0][0].close()
    news = News("node")
    child.read(news)
    assert two.find_dead(news) == []
    assert not child.takes_jobs
    monkeypatch.setattr(template, "exits", lambda: {child.pid: signal.SIGSEGV})
    assert two.find_dead(news) == [child]
    assert child._how_it_ended() == "its process died of SIGSEGV"


def test_a_child_whose_end_nobody_tells_is_given_up(two, template):
    child: Child = two.all[0]
    template.peers[0][0].close()
    child.read(News("node"))
    child.died_at -= children.EXIT_SECONDS + 1
    assert two.find_dead(News("node")) == [child]


def test_a_pool_whose_children_die_at_once_does_not_keep_others_from_theirs(template):
    children_ = Children(template, 1, 4)
    children_.spawn_missing(POLICY)
    (io,) = [child for child in children_.all if child.pool == IO]
    (process,) = [child for child in children_.all if child.pool == PROCESS]
    process.has_worked = True
    children_.bury([io, process], News("node"))
    assert [child.pool for child in children_.spawn_missing(POLICY)] == [PROCESS]
    children_.kill_all()


def test_output_that_the_node_has_read_is_all_in_the_log_when_the_job_ends(two, template):
    child: Child = two.all[0]
    child.give([(claimed(1), 0.001)], 5.0)
    news = News("node")
    child.held[0].add_output("stdout", "a line\nno end")
    news.take_lines(child.held[0])
    assert [line[-1] for line in news.logs] == ["a line"]
    template.peers[0][0].sendall(encode({"results": [[0, "ok", 1, 2]]}))
    later = News("node")
    child.read(later)
    assert [line[-1] for line in later.logs] == ["no end"]
