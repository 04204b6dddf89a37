"""What the two clusters are for: their queues and work, what goes wrong with it, and their schedules.

All of it is made up, names of hosts too: none of them leads anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobs.states import Outcome

Chance = random.Random
Document = Callable[[Chance], Any]


def nothing(chance: Chance) -> Any:
    return None


@dataclass(frozen=True)
class Work:
    """One sort of job: how often it comes, how long it takes, who asks for it."""

    type: str
    queue: str
    # Of a hundred jobs of the day.
    share: float
    seconds: float
    by: str
    payload: Document = nothing
    kind: str = "python"
    spread: float = 0.5
    result: Document = nothing
    metadata: Document | None = None
    tags: Sequence[str] = ()
    max_attempts: int = 3
    timeout: float = 300.0
    on_lost: str = "retry"
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Trouble:
    """Failures of one cause: which work, when, how many jobs failed for good and how many got over it."""

    type: str
    error: str
    text: str
    # Of the innermost line of the handler's own code.
    file: str
    function: str
    failed: int = 0
    recovered: int = 0
    # Minutes ago; the whole day where nothing is said.
    begun: float = 1440.0
    over: float = 6.0
    outcome: Outcome = Outcome.FAILED
    is_held: bool = False
    is_permanent: bool = False

    def message(self, chance: Chance) -> str:
        return self.text.format(
            number=chance.randrange(1000, 99_999), other=chance.randrange(2, 60)
        )

    def trace(self, message: str) -> str:
        if not self.file:
            return message
        line = 40 + sum(map(ord, self.function)) % 160
        return (
            "Traceback (most recent call last):\n"
            '  File "/srv/app/lib/python3.11/site-packages/kit/runner.py", line 71, in call\n'
            "    return function(context, payload)\n"
            f'  File "/srv/app/{self.file}", line {line}, in {self.function}\n'
            f"    {self.function}(context, payload)\n"
            f"{self.error}: {message}"
        )


@dataclass(frozen=True)
class Line:
    """A queue."""

    name: str
    description: str
    policies: Mapping[str, Any] = field(default_factory=dict)
    paused_for: timedelta | None = None
    paused_by: str = ""
    pause_reason: str = ""
    resumes_in: timedelta | None = None
    # Jobs of the full day that wait in it.
    backlog: int = 0

    @property
    def about(self) -> Mapping[str, Any]:
        return {"description": self.description, **self.policies}


@dataclass(frozen=True)
class Timetable:
    """A schedule, and how its day went."""

    name: str
    type: str
    queue: str
    about: str
    expression: str = ""
    every: float = 0.0
    zone: str = "UTC"
    overlap: str = "skip"
    # For so many minutes no node has looked, so that a run is overdue.
    late: float = 0.0
    # So many minutes ago an outage began in which its instants were missed, and how long it lasted.
    missed_at: float = 0.0
    missed_for: float = 0.0
    # The last runs that failed.
    failing: int = 0
    paused: str = ""
    is_enabled: bool = True
    without_weekends: bool = False


@dataclass(frozen=True)
class Graph:
    """A workflow: its nodes, each with those before it, as names of timetables."""

    name: str
    about: str
    nodes: Sequence[tuple[str, Sequence[str]]]
    expression: str
    zone: str = "Europe/Berlin"


@dataclass(frozen=True)
class Play:
    name: str
    # Of the full day.
    jobs: int
    host: str
    nodes: int
    slots: int
    works: Sequence[Work]
    troubles: Sequence[Trouble]
    queues: Sequence[Line]
    timetables: Sequence[Timetable]
    graphs: Sequence[Graph]
    # How busy each hour of the day is, in UTC.
    hours: Sequence[float]
    # Which node died and which is being drained, if any.
    dies: int = -1
    drains: int = -1

    def load_at(self, moment: datetime) -> float:
        """How busy it is, from 0 to 1."""
        return self.hours[moment.hour] / max(self.hours)

    def work(self, type_name: str) -> Work:
        return next(work for work in self.works if work.type == type_name)


def _tenant(chance: Chance) -> dict[str, Any]:
    return {"tenant": f"t-{chance.randrange(1, 41):02d}"}


LETTERS = Play(
    name="letters",
    jobs=78_000,
    host="mercury",
    nodes=4,
    slots=16,
    dies=2,
    drains=3,
    hours=(
        9,
        7,
        6,
        6,
        8,
        14,
        30,
        52,
        78,
        96,
        100,
        97,
        84,
        88,
        95,
        93,
        90,
        86,
        72,
        61,
        48,
        34,
        22,
        14,
    ),
    works=(
        Work(
            "letter:send",
            "mail",
            44,
            0.18,
            "key:shop",
            lambda c: {
                "template": c.choice(("order-shipped", "order-paid", "welcome", "reminder")),
                "to": {"customer": c.randrange(10_000, 99_999)},
                "locale": c.choice(("de", "en", "fr", "it")),
            },
            result=lambda c: {"message_id": f"m-{c.getrandbits(40):010x}"},
            metadata=_tenant,
            tags=("eu", "eu", "us"),
            max_attempts=1,
            lines=("connected to smtp-2.mail.invalid", "accepted for delivery"),
        ),
        Work(
            "push:send",
            "push",
            26,
            0.05,
            "key:mobile",
            lambda c: {"device": f"d-{c.getrandbits(32):08x}", "badge": c.randrange(9)},
            tags=("ios", "android"),
        ),
        Work(
            "template:render",
            "render",
            12,
            0.03,
            "key:shop",
            lambda c: {"template": f"offer-{c.randrange(40)}", "locale": c.choice(("de", "en"))},
        ),
        Work(
            "sms:send",
            "sms",
            6,
            0.4,
            "key:shop",
            lambda c: {"to": {"customer": c.randrange(10_000, 99_999)}, "parts": c.randrange(1, 4)},
            max_attempts=5,
        ),
        Work(
            "webhook:deliver",
            "webhooks",
            6,
            0.3,
            "key:partners",
            lambda c: {
                "method": "POST",
                "url": f"https://hooks.partner-{c.randrange(1, 9)}.invalid/events",
                "json": {"event": "delivered", "id": c.randrange(10_000, 99_999)},
            },
            kind="http",
            result=lambda c: {"status": 200},
            max_attempts=4,
        ),
        Work(
            "digest:build",
            "digests",
            4,
            2.6,
            "schedules",
            lambda c: {
                "segment": c.choice(("daily", "weekly", "dormant")),
                "page": c.randrange(90),
            },
            result=lambda c: {"letters": c.randrange(20, 400)},
            lines=("reading the segment", "composing", "handed over to letter:send"),
        ),
        Work(
            "image:resize",
            "media",
            1,
            1.2,
            "key:studio",
            lambda c: {"image": f"i-{c.getrandbits(32):08x}", "width": c.choice((320, 640, 1280))},
        ),
        Work("inbox:clean", "housekeeping", 1, 8.0, "schedules", lambda c: {"older_than_days": 30}),
        Work(
            "letter:registered",
            "mail",
            0.2,
            1.1,
            "key:legal",
            lambda c: {"document": c.randrange(1000, 9999)},
            on_lost="hold",
            max_attempts=2,
        ),
        Work("segment:refresh", "digests", 0, 95.0, "schedules", timeout=3600.0),
    ),
    troubles=(
        Trouble(
            "letter:send",
            "ConnectionRefusedError",
            "[Errno 111] Connection refused: smtp-2.mail.invalid:587",
            "letters/transport.py",
            "deliver",
            failed=2134,
            begun=96,
            over=31,
        ),
        Trouble(
            "push:send",
            "DeviceGone",
            "device token of customer {number} is no longer valid",
            "push/gateway.py",
            "send",
            failed=287,
            is_permanent=True,
        ),
        Trouble(
            "sms:send",
            "GatewayBusy",
            "gateway answered 503 after {other} s",
            "sms/gateway.py",
            "submit",
            failed=38,
            recovered=690,
            begun=520,
            over=210,
        ),
        Trouble(
            "digest:build",
            "KeyError",
            "'locale'",
            "digests/compose.py",
            "headline_of",
            failed=46,
            begun=368,
        ),
        Trouble(
            "webhook:deliver",
            "HttpError",
            "partner answered 502 Bad Gateway",
            "",
            "",
            failed=63,
            recovered=240,
        ),
        Trouble(
            "template:render",
            "TemplateMissing",
            "no template offer-{other} in the catalogue",
            "letters/templates.py",
            "load",
            failed=17,
            recovered=0,
            begun=840,
            over=610,
            is_permanent=True,
        ),
        Trouble(
            "image:resize",
            "MemoryError",
            "an image of {number} x {number} pixels does not fit",
            "studio/images.py",
            "scale",
            failed=9,
            begun=1300,
            over=400,
        ),
        Trouble(
            "letter:registered",
            "NodeLost",
            "the node that ran it is gone",
            "",
            "",
            failed=6,
            begun=126,
            over=125.2,
            outcome=Outcome.LOST,
            is_held=True,
        ),
    ),
    queues=(
        Line("mail", "Letters to customers", {"max_concurrency": 48}, backlog=37),
        Line("push", "Messages to phones"),
        Line("render", "Templates, before anything is sent"),
        Line("sms", "Short messages; the gateway allows 50 a second", {"rate_limit": 50}),
        Line("webhooks", "Events for partners", {"default_max_attempts": 4}),
        Line("digests", "Summaries by segment", {"max_concurrency": 16}),
        Line(
            "media",
            "Images of letters",
            paused_for=timedelta(hours=2, minutes=52),
            paused_by="user:oncall",
            pause_reason="The image store moves to new disks",
            resumes_in=timedelta(hours=3),
            backlog=412,
        ),
        Line("housekeeping", "What can wait until the night"),
    ),
    timetables=(
        Timetable(
            "Clean inboxes",
            "inbox:clean",
            "housekeeping",
            "Bounces older than 30 days",
            "*/5 * * * *",
        ),
        Timetable(
            "Daily digest",
            "digest:build",
            "digests",
            "For those who want it at seven",
            "0 7 * * *",
            zone="Europe/Berlin",
        ),
        Timetable(
            "Digest overseas",
            "digest:build",
            "digests",
            "The same at seven in New York",
            "0 7 * * *",
            zone="America/New_York",
        ),
        Timetable(
            "Refresh segments",
            "segment:refresh",
            "digests",
            "Who is in which segment",
            "*/30 * * * *",
            late=54,
        ),
        Timetable(
            "Refresh dormant",
            "segment:refresh",
            "digests",
            "Customers of long ago",
            "15 * * * *",
            missed_at=700,
            missed_for=190,
        ),
        Timetable("Warm templates", "template:render", "render", "The most used ones", every=900),
        Timetable(
            "Poll SMS receipts", "sms:send", "sms", "What became of short messages", every=120
        ),
        Timetable(
            "Retry partners",
            "webhook:deliver",
            "webhooks",
            "Deliveries that were refused",
            "10 * * * *",
            failing=4,
        ),
        Timetable(
            "Resize banners",
            "image:resize",
            "media",
            "Rests while the image store moves",
            "0 * * * *",
            paused="The image store moves to new disks",
        ),
        Timetable(
            "Weekly report",
            "digest:build",
            "digests",
            "Figures for the week",
            "0 6 * * 1",
            zone="Europe/Berlin",
        ),
        Timetable(
            "Old newsletter",
            "letter:send",
            "mail",
            "Nobody reads it any more",
            "0 9 * * *",
            is_enabled=False,
        ),
        Timetable(
            "Campaign: choose",
            "segment:refresh",
            "digests",
            "Who gets the offer",
            "0 3 1 1 *",
            is_enabled=False,
        ),
        Timetable(
            "Campaign: render",
            "template:render",
            "render",
            "The offer for each locale",
            "0 3 1 1 *",
            is_enabled=False,
        ),
        Timetable(
            "Campaign: send",
            "letter:send",
            "mail",
            "To everybody chosen",
            "0 3 1 1 *",
            is_enabled=False,
        ),
        Timetable(
            "Campaign: push",
            "push:send",
            "push",
            "And on their phones",
            "0 3 1 1 *",
            is_enabled=False,
        ),
        Timetable(
            "Campaign: report",
            "digest:build",
            "digests",
            "What it came to",
            "0 3 1 1 *",
            is_enabled=False,
        ),
    ),
    graphs=(
        Graph(
            "Campaign",
            "An offer, from the choice of customers to the figures",
            (
                ("Campaign: choose", ()),
                ("Campaign: render", ("Campaign: choose",)),
                ("Campaign: send", ("Campaign: render",)),
                ("Campaign: push", ("Campaign: render",)),
                ("Campaign: report", ("Campaign: send", "Campaign: push")),
            ),
            "0 */4 * * *",
        ),
    ),
)

WAGES = Play(
    name="wages",
    jobs=22_000,
    host="ledger",
    nodes=2,
    slots=6,
    hours=(
        3,
        3,
        60,
        40,
        20,
        10,
        18,
        45,
        80,
        92,
        96,
        88,
        60,
        70,
        90,
        84,
        66,
        40,
        18,
        10,
        8,
        6,
        4,
        3,
    ),
    works=(
        Work(
            "payslip:render",
            "payslips",
            40,
            1.4,
            "key:office",
            lambda c: {"contract": c.randrange(1000, 9999), "month": "2030-01"},
            result=lambda c: {"pages": c.randrange(1, 4)},
            lines=("reading the contract", "rendering", "stored"),
        ),
        Work(
            "timesheet:import",
            "imports",
            27,
            3.1,
            "key:terminals",
            lambda c: {"terminal": f"gate-{c.randrange(1, 30)}", "rows": c.randrange(5, 900)},
            result=lambda c: {"rows": c.randrange(5, 900)},
            tags=("north", "south"),
        ),
        Work(
            "mail:payslip",
            "mail",
            18,
            0.3,
            "key:office",
            lambda c: {"contract": c.randrange(1000, 9999)},
        ),
        Work(
            "bank:transfer",
            "transfers",
            10,
            0.9,
            "key:treasury",
            lambda c: {
                "method": "POST",
                "url": "https://api.bank.invalid/transfers",
                "json": {"contract": c.randrange(1000, 9999)},
            },
            kind="http",
            on_lost="hold",
            max_attempts=2,
            result=lambda c: {"status": 201},
        ),
        Work(
            "ledger:post", "ledger", 3, 0.6, "key:treasury", lambda c: {"batch": c.randrange(999)}
        ),
        Work(
            "tax:report",
            "reports",
            2,
            42.0,
            "user:accounting",
            lambda c: {"office": c.randrange(1, 17)},
            timeout=600.0,
            lines=("collecting", "checking sums", "signing"),
        ),
        Work("archive:year", "reports", 0, 900.0, "user:accounting", timeout=7200.0),
    ),
    troubles=(
        Trouble(
            "payslip:render",
            "ValueError",
            "net amount of contract {number} is negative",
            "wages/slips.py",
            "net_of",
            failed=31,
            is_permanent=True,
        ),
        Trouble(
            "timesheet:import",
            "UnicodeDecodeError",
            "'utf-8' codec can't decode byte 0xfc in position {number}",
            "wages/imports.py",
            "rows_of",
            failed=12,
            recovered=0,
            is_permanent=True,
        ),
        Trouble(
            "mail:payslip",
            "TimeoutError",
            "timed out after {other} s",
            "wages/post.py",
            "hand_over",
            failed=3,
            recovered=120,
            begun=900,
            over=640,
        ),
        Trouble(
            "tax:report",
            "Timeout",
            "stopped after 600 s",
            "",
            "",
            failed=4,
            begun=700,
            over=300,
            outcome=Outcome.TIMEOUT,
        ),
    ),
    queues=(
        Line("payslips", "A page for each contract and month"),
        Line("imports", "Hours from the terminals", backlog=6),
        Line("mail", "Payslips to people"),
        Line(
            "transfers", "Money; held where nobody knows what became of it", {"max_concurrency": 2}
        ),
        Line("ledger", "One at a time, in order", {"max_concurrency": 1}),
        Line("reports", "For the tax office"),
    ),
    timetables=(
        Timetable(
            "Import timesheets", "timesheet:import", "imports", "From all terminals", "*/10 * * * *"
        ),
        Timetable(
            "Post the ledger", "ledger:post", "ledger", "What was booked meanwhile", "5 * * * *"
        ),
        Timetable(
            "Tax report",
            "tax:report",
            "reports",
            "For each office",
            "30 2 * * *",
            zone="Europe/Berlin",
            without_weekends=True,
        ),
        Timetable(
            "Payday",
            "bank:transfer",
            "transfers",
            "On the 28th at noon",
            "0 12 28 * *",
            zone="Europe/Berlin",
        ),
        Timetable(
            "Archive the year",
            "archive:year",
            "reports",
            "In the first night of February",
            "0 1 1 2 *",
        ),
        Timetable(
            "Month end: payslips",
            "payslip:render",
            "payslips",
            "All contracts",
            "0 3 1 1 *",
            is_enabled=False,
        ),
        Timetable(
            "Month end: mail", "mail:payslip", "mail", "To everybody", "0 3 1 1 *", is_enabled=False
        ),
        Timetable(
            "Month end: ledger", "ledger:post", "ledger", "The sums", "0 3 1 1 *", is_enabled=False
        ),
    ),
    graphs=(
        Graph(
            "Month end",
            "Payslips, letters and the ledger",
            (
                ("Month end: payslips", ()),
                ("Month end: mail", ("Month end: payslips",)),
                ("Month end: ledger", ("Month end: payslips",)),
            ),
            "0 18 28 * *",
        ),
    ),
)

# By the cluster that `up` makes for each; other clusters take them in this order.
OF_CLUSTERS = {"notifications": LETTERS, "payroll": WAGES}
PLAYS = (LETTERS, WAGES)
