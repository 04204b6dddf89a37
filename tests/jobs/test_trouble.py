"""Backing off, and which errors concern the whole database."""

from __future__ import annotations

import logging
import sqlite3

import psycopg
import pytest
from django.db import DatabaseError, DataError, InterfaceError, OperationalError

from jobs.engine.trouble import Trouble, condition_of, is_outage


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of_server(state: str) -> Exception:
    return caused(DatabaseError(), psycopg.errors.lookup(state)())


def of_sqlite(text: str) -> Exception:
    return caused(OperationalError(text), sqlite3.OperationalError(text))


@pytest.mark.parametrize(
    "state", ["08006", "57P01", "57P02", "57P03", "53300", "53100", "25006", "58P01", "XX000"]
)
def test_errors_of_the_server_concern_everything(state):
    assert is_outage(of_server(state))


@pytest.mark.parametrize("state", ["57014", "40001", "40P01", "55P03", "23505", "42P01", "22021"])
def test_errors_of_a_statement_concern_only_it(state):
    assert not is_outage(of_server(state))


@pytest.mark.parametrize(
    ("text", "concerns_everything"),
    [
        ("database or disk is full", True),
        ("attempt to write a readonly database", True),
        ("unable to open database file", True),
        ("disk I/O error", True),
        ("database is locked", False),
        ("no such table: job", False),
    ],
)
def test_errors_of_sqlite_are_told_apart(text, concerns_everything):
    assert is_outage(of_sqlite(text)) == concerns_everything


def test_no_answer_at_all_is_an_outage_and_a_fault_of_ours_is_not():
    assert is_outage(caused(OperationalError(), psycopg.OperationalError("connection refused")))
    assert is_outage(InterfaceError("connection already closed"))
    assert not is_outage(DataError())
    assert not is_outage(ValueError())


def test_waits_grow_up_to_a_limit_and_start_anew_after_success(monkeypatch):
    monkeypatch.setattr("jobs.engine.trouble.countdown", lambda: 0.0)
    trouble = Trouble("it")
    waits = []
    for _ in range(12):
        trouble.note(ValueError())
        waits.append(trouble.retry_at)
    assert 0.4 <= waits[0] <= 0.6
    assert 0.8 <= waits[1] <= 1.2
    assert all(12.0 <= wait <= 18.0 for wait in waits[6:])
    assert trouble.must_wait
    trouble.end()
    assert not trouble.is_on and not trouble.must_wait
    trouble.note(ValueError())
    assert trouble.retry_at <= 0.6


def test_each_change_of_condition_is_one_line(caplog):
    trouble = Trouble("it")
    with caplog.at_level(logging.INFO, "jobs.engine.trouble"):
        for error in (of_server("57P01"), of_server("57P01"), of_server("53300"), ValueError("x")):
            trouble.note(error)
        trouble.end()
        trouble.end()
    told = [record.levelname for record in caplog.records]
    assert told == ["ERROR", "ERROR", "ERROR", "INFO"]
    assert condition_of(of_server("53300")) == "DatabaseError 53300"
