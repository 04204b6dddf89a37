"""What every endpoint of this API has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.viewsets import ViewSetMixin

from authn.models import ApiKey, Role
from authn.principal import Principal
from clusters.deeds import Trace, traced
from clusters.registry import alias_of
from clusters.surfaces import ClusterView, DialectView, UnknownAddress
from config.parsers import read_body
from config.problems import BodyTooLarge
from jobs.dialects.tork.errors import JSON, exception_handler, refuse
from jobs.dialects.tork.wire.rules import People

# The original's limit, where ours is not below it.
MAX_BODY_BYTES = 500_000
# A role that everybody has.
PUBLIC = "public"
_PLAIN_INTEGER = 18


class _Spoken(DialectView):
    """Refuses in the words of this API."""

    dialect = "tork"
    schema = None

    def get_exception_handler(self) -> Callable[..., HttpResponse]:
        return exception_handler


class TorkView(ViewSetMixin, _Spoken, ClusterView):
    http_method_names = ["get", "head", "post", "put", "delete"]
    # Which verb of authn.permissions each action needs.
    verbs: ClassVar[Mapping[str, str]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        # Also where no body is read.
        length = str(request.META.get("CONTENT_LENGTH") or "")
        if length.isascii() and length.isdigit() and int(length[:18]) > self.max_bytes:
            raise BodyTooLarge(self.max_bytes)

    @property
    def using(self) -> str:
        return alias_of(self.kwargs["cluster_id"])

    @property
    def max_bytes(self) -> int:
        return min(MAX_BODY_BYTES, settings.MAX_BODY_BYTES)

    def raw(self) -> bytes:
        """The body, whatever its type is said to be."""
        stream = self.request.stream
        return b"" if stream is None else read_body(stream, self.request.META, self.max_bytes)

    def deed(
        self, target_type: str, target_id: Any = "", *, verb: str | None = None
    ) -> AbstractContextManager[Trace]:
        """Do this action in one transaction with its trace."""
        verb = verb or self.verbs[self.action]
        return traced(verb, target_type, target_id)


class Unknown(_Spoken, UnknownAddress):
    """What has no route here."""


def reply(data: Any) -> HttpResponse:
    """JSON as the original writes it; whatever was done, it is 200."""
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        body = f"{text}\n".encode()
    except UnicodeEncodeError:
        # A lone surrogate that some Python code stored; escaped it is at least harmless.
        body = json.dumps(data, separators=(",", ":")).encode() + b"\n"
    return HttpResponse(body, content_type=JSON)


OK = {"status": "OK"}


class Page(NamedTuple):
    """Which page is asked for, and how large it may be."""

    number: int
    size: int

    @classmethod
    def of(cls, query: Mapping[str, str], size: int, most: int) -> Page:
        number = _integer(query, "page", "invalid page number", 1)
        return cls(max(number, 1), min(max(_integer(query, "size", "invalid size", size), 1), most))

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    def reply(self, items: Sequence[Any], total: int) -> HttpResponse:
        return reply(
            {
                "items": items,
                "number": self.number,
                "size": len(items),
                "totalPages": -(-total // self.size),
                "totalItems": total,
            }
        )


def _integer(query: Mapping[str, str], name: str, refusal: str, default: int) -> int:
    text = query.get(name) or ""
    if not text:
        return default
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _PLAIN_INTEGER):
        refuse(f"{refusal}: {text[:100]}", 404)
    return int(text)


# -- People ----------------------------------------------------------------------------------------


def audience(principal: Principal, cluster_id: str) -> tuple[str, ...] | None:
    """As whom lists of jobs know the caller; None where he is no user, and sees all."""
    origin, _, name = principal.actor.partition(":")
    if origin != "user":
        return None
    groups = Group.objects.filter(**{f"user__{_username()}": name}).values_list("name", flat=True)
    roles = [principal.role_on(cluster_id) or PUBLIC, PUBLIC, *groups]
    return (f"user:{name}", *dict.fromkeys(f"role:{role}" for role in roles))


def people() -> People:
    """Who may be named in permissions."""
    return People(is_user=_is_user, is_role=_is_role)


def _is_user(name: str) -> bool:
    return "\0" not in name and _users().filter(**{_username(): name}).exists()


def _is_role(name: str) -> bool:
    if name == PUBLIC or name in Role.values:
        return True
    return "\0" not in name and Group.objects.filter(name=name).exists()


def known_since(actors: Iterable[str]) -> dict[str, datetime]:
    """Since when these are known, in two questions however many they are."""
    named: dict[str, set[str]] = {"user": set(), "key": set()}
    for actor in actors:
        origin, _, name = actor.partition(":")
        if origin in named and "\0" not in name:
            named[origin].add(name)
    made: dict[str, datetime] = {}
    if named["user"]:
        rows = _users().filter(**{f"{_username()}__in": named["user"]})
        made |= {f"user:{n}": at for n, at in rows.values_list(_username(), "date_joined")}
    if named["key"]:
        keys = ApiKey.objects.filter(name__in=named["key"])
        made |= {f"key:{n}": at for n, at in keys.values_list("name", "created_at")}
    return made


def _users() -> Any:
    return get_user_model()._default_manager.all()


def _username() -> str:
    return str(get_user_model().USERNAME_FIELD)
