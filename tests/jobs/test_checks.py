from __future__ import annotations

import pytest

from jobs.checks import http_addresses
from tests.processes import manage, worker_environment


@pytest.mark.parametrize(
    ("allow", "ports"), [(["10.0.0.0/99"], ["80"]), ([], ["eighty"]), (["[::1"], ["80"])]
)
def test_addresses_that_nobody_can_read_are_named(allow, ports, settings):
    settings.HTTP_ALLOW, settings.HTTP_PORTS = allow, ports
    assert [found.id for found in http_addresses(None)] == ["jobs.E001"]


def test_sound_addresses_pass(settings):
    settings.HTTP_ALLOW, settings.HTTP_PORTS = ["127.0.0.1:8080", "10.0.0.0/8"], ["80", "443"]
    assert http_addresses(None) == []


@pytest.mark.django_db(transaction=True)
def test_a_node_does_not_start_with_them():
    done = manage(
        "worker", "--cluster", "alpha", env=worker_environment(YARDMASTER_HTTP_PORTS="eighty")
    )
    assert done.returncode == 1
    assert "jobs.E001" in done.stderr
