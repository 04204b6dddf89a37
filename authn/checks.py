"""System checks with stable ids."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from authn.providers import NAMES
from clusters.checks import TAG


@checks.register(TAG)
def providers_can_be_called(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """A host's own code that is not there would turn everybody away, at each request anew."""
    found: list[checks.CheckMessage] = []
    for name in NAMES:
        path = getattr(settings, name)
        if not path:
            continue
        try:
            is_sound = callable(import_string(path))
        except ImportError:
            is_sound = False
        if not is_sound:
            found.append(
                checks.Error(f"YARDMASTER_{name}: {path!r} cannot be called.", id="authn.E001")
            )
    return found


@checks.register(TAG)
def tls_is_said_where_it_is_required(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    if not settings.REQUIRE_TLS or settings.USE_TLS:
        return []
    return [
        checks.Warning(
            "YARDMASTER_REQUIRE_TLS is on and YARDMASTER_TLS is not: browsers would send the cookies of "
            "the screen over plain HTTP as well.",
            hint="Set YARDMASTER_TLS=yes, unless `serve --tls-cert` says so for you.",
            id="authn.W001",
        )
    ]


@checks.register(TAG, deploy=True)
def credentials_need_tls(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    if settings.REQUIRE_TLS:
        return []
    return [
        checks.Warning(
            "Credentials are taken over plain HTTP too; whoever reads along can use them again.",
            hint="Set YARDMASTER_REQUIRE_TLS=yes.",
            id="authn.W002",
        )
    ]
