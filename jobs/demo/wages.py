"""A cluster that pays wages: a few slow jobs, a workflow at the end of the month.

All of it is made up, names of hosts too: none of them leads anywhere.
"""

from __future__ import annotations

from jobs.demo.play import Graph, Line, Play, Timetable, Trouble, Work
from jobs.states import Outcome

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
            without_holidays=True,
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
