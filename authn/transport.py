"""Credentials travel over TLS, where the settings require it.

Whether a request did the server knows where it ends TLS itself, and from ``X-Forwarded-Proto`` where a
proxy does: the one that gunicorn trusts, on this host, or those of the settings. Health needs none.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.exceptions import APIException


class TlsRequired(APIException):
    """Credentials are taken over HTTPS only; those that came in the clear should be replaced."""

    status_code = 403
    default_code = "tls_required"
    default_detail = __doc__


def is_in_the_clear(request: HttpRequest) -> bool:
    """Whether what this request carries could be read on its way, and must not."""
    return bool(settings.REQUIRE_TLS) and not request.is_secure()


def refuse_in_the_clear(request: HttpRequest) -> None:
    """Before the credential is looked at: whether it is good is not told to whoever reads along."""
    if is_in_the_clear(request):
        raise TlsRequired
