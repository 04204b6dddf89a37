"""Below /admin/sso/: to the provider, and back. What else allauth has stays unmounted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import requests
from allauth.socialaccount.providers.openid_connect import views
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.generic import RedirectView

from config.single_sign_on import PROVIDER_ID

logger = logging.getLogger(__name__)


def _patiently(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A provider that does not answer is no error of ours."""

    def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, **kwargs)
        except (requests.RequestException, KeyError, ValueError) as error:
            logger.warning("the provider of single sign-on does not answer: %r", error)
            return HttpResponse("single sign-on does not answer", "text/plain", status=503)

    return answer


_provider = {"provider_id": PROVIDER_ID}
_login_page = RedirectView.as_view(url=settings.LOGIN_URL)

urlpatterns: list[Any] = [
    path("login/", _patiently(views.login), _provider, name="openid_connect_login"),
    path("callback/", _patiently(views.callback), _provider, name="openid_connect_callback"),
    # Names that allauth leads to.
    path("closed/", _login_page, name="account_login"),
    path("inactive/", _login_page, name="account_inactive"),
]
