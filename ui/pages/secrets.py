"""The named secrets of a cluster: who changed which and when; values go in and never come out."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.api.paging import Order, PageQuery
from clusters.binding import current_cluster
from jobs.errors import JobError
from jobs.models import Secret
from jobs.sealing import first_key, key_of
from ui.access_forms import NewSecretForm, SecretForm
from ui.answers import address, confirm, done, refused, sent
from ui.asking import Asked
from ui.callers import may, require
from ui.deeds import deed
from ui.forms import DestroyForm
from ui.fragments import show
from ui.pages.audit import tabs

PAGE_SIZE = 50
BY_NAME = Order(("name",), (str,), is_descending=False)


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "secrets.read")
    asked = Asked(request, PageQuery)
    turned = asked.page(request, lambda words: Secret.objects.all(), BY_NAME, PAGE_SIZE)
    key = first_key()
    context = {
        **turned,
        "rows": [(row, key_of(row.sealed) == key) for row in turned["rows"]],
        "has_key": key is not None,
        "tabs": tabs(request, "secrets"),
        "may_write": may(request, "secrets.write"),
    }
    return show(site, request, "secrets", context, title="Secrets", status=asked.status)


def new(site: Any, request: HttpRequest) -> HttpResponse:
    principal = require(request, "secrets.write")
    form = NewSecretForm(sent(request))
    if request.method == "POST" and form.is_valid():
        words = form.cleaned_data
        try:
            with deed(request, "secrets.write", "secret", words["name"]) as trace:
                Secret.objects.all().create_secret(by=principal.actor, **words)
                trace.after = {"description": words["description"], "version": 1}
        except JobError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            return done(
                request, f"Jobs may name secret:{words['name']} now.", address(request, "secrets")
            )
    return _form(site, request, form, title="New secret", button="Keep it")


def replace(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    principal = require(request, "secrets.write")
    secret = _one(name)
    form = SecretForm(sent(request), initial={"description": secret.description})
    if request.method == "POST" and form.is_valid():
        words = form.cleaned_data
        try:
            with deed(request, "secrets.write", "secret", name) as trace:
                Secret.objects.all().change(name, by=principal.actor, **words)
                trace.before = {"description": secret.description, "version": secret.version}
                trace.after = {"description": words["description"], "has_new_value": True}
        except JobError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            said = f"{name} has a new value, for jobs that start from now on."
            return done(request, said, address(request, "secrets"))
    return _form(site, request, form, title=f"Replace {name}", button="Replace it")


def delete(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    require(request, "secrets.write")
    secret, back = _one(name), address(request, "secrets")
    form = DestroyForm(sent(request), cluster=current_cluster())
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "secrets.write", "secret", name, reason=reason) as trace:
                Secret.objects.all().delete_secret(name)
                trace.before = {"description": secret.description, "version": secret.version}
                trace.after = {"is_deleted": True}
        except JobError as error:
            return refused(request, error, back)
        return done(request, f"{name} is forgotten.", back)
    return confirm(
        site,
        request,
        form,
        title=f"Delete the secret {name}?",
        button="Delete the secret",
        effect="Jobs that name it fail from now on. Nobody can bring its value back.",
        target=name,
        back=back,
    )


def _form(site: Any, request: HttpRequest, form: Any, *, title: str, button: str) -> HttpResponse:
    context = {
        **site.each_context(request),
        "title": title,
        "subtitle": None,
        "form": form,
        "button": button,
        "back": address(request, "secrets"),
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/access/form.html", context, status=status)


def _one(name: str) -> Secret:
    # What no secret can be called is not asked for: some databases refuse the very question.
    secret = None if "\0" in name else Secret.objects.filter(name=name).first()
    if secret is None:
        raise Http404
    return secret


ROUTES = (
    ("governance/secrets/", page, "secrets"),
    ("governance/secrets/new/", new, "secret-new"),
    ("governance/secrets/named/<str:name>/", replace, "secret"),
    ("governance/secrets/named/<str:name>/delete/", delete, "secret-delete"),
)
