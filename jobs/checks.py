"""System checks of the kinds of work."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from clusters.checks import TAG
from jobs.executors.address_guard import AddressPolicy


@checks.register(TAG)
def http_addresses(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse to start with addresses for `http` jobs that nobody can read."""
    try:
        AddressPolicy.read(settings.HTTP_ALLOW, settings.HTTP_PORTS)
    except ValueError as error:
        return [
            checks.Error(
                f"YARDMASTER_HTTP_ALLOW or YARDMASTER_HTTP_PORTS: {error}",
                hint="Ports are numbers; allowances are host:port, 10.0.0.0/8 or 10.0.0.0/8:8000.",
                id="jobs.E001",
            )
        ]
    return []
