"""How a page answers a deed: it leads back with a sentence, or asks for a reason first."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from jobs.errors import JobError
from ui.callers import tell_refusal

View = Callable[..., HttpResponse]


def post_only(view: View) -> View:
    """A deed is a POST; whoever only looks is refused."""

    def answer(site: Any, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return view(site, request, **kwargs)

    return update_wrapper(answer, view)


def address(request: HttpRequest, name: str, /, **kwargs: Any) -> str:
    """A page of the site that answers."""
    site: str = request.current_app
    return reverse(f"admin:{name}", kwargs=kwargs, current_app=site)


def sent(request: HttpRequest) -> Any:
    """What a form was filled with; None where it is only shown."""
    return request.POST if request.method == "POST" else None


def done(request: HttpRequest, said: str, to: str) -> HttpResponse:
    messages.success(request, said)
    return HttpResponseRedirect(to)


def refused(request: HttpRequest, error: JobError, to: str) -> HttpResponse:
    """Back to where it was asked, with the reason and the id under which the log has more."""
    tell_refusal(request, error)
    text = str(error)
    request_id = getattr(request, "request_id", "")
    said = f"{text[:1].upper()}{text[1:].rstrip('.')}. Nothing was changed. (request {request_id})"
    messages.error(request, said)
    return HttpResponseRedirect(to)


def confirm(
    site: Any,
    request: HttpRequest,
    form: Any,
    *,
    title: str,
    button: str,
    effect: str,
    target: str,
    back: str,
) -> HttpResponse:
    """What is about to happen to what, and a form for the reason."""
    context = {
        **site.each_context(request),
        "title": title,
        "subtitle": None,
        "form": form,
        "button": button,
        "effect": effect,
        "target": target,
        "back": back,
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/confirm.html", context, status=status)
