"""What an address asks a list for: the native API's own words, checked by its own forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from django.db.models import QuerySet
from django.http import HttpRequest
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.fields import read_query
from clusters.api.paging import Order, read_page
from config.problems import FieldError, InvalidInput


class Asked:
    """The checked words of a query string, or what is wrong with it."""

    def __init__(self, request: HttpRequest, form: type[serializers.Serializer[Any]]) -> None:
        self.given = request.GET.copy()
        for name in [*self.given]:
            # A form sends what nobody filled in, too.
            filled = [value for value in self.given.getlist(name) if value.strip()]
            if filled:
                self.given.setlist(name, filled)
            else:
                del self.given[name]
        self.errors: list[FieldError] = []
        self.words: dict[str, Any] = {}
        try:
            self.words = read_query(form, self.given)
        except InvalidInput as error:
            self.errors = error.errors

    def page(
        self,
        request: HttpRequest,
        find: Callable[[Mapping[str, Any]], QuerySet[Any, Any]],
        order: Order,
        size: int,
    ) -> dict[str, Any]:
        """What a template needs of one page of the rows that are found by the words."""
        rows: list[Any] = []
        following = previous = None
        try:
            if not self.errors:
                words = {"limit": size, **self.words}
                turned = read_page(self.turner(request), find(self.words), order, words)
                rows, following, previous = [*turned.rows], turned.next, turned.previous
        except InvalidInput as error:
            self.refuse(error)
        return {"rows": rows, "next": following, "previous": previous, "errors": self.errors}

    def turner(self, request: HttpRequest) -> Request:
        """The request as the paging of lists reads it."""
        return cast(Request, SimpleNamespace(query_params=self.given, path=request.path))

    def turner_query(self) -> list[tuple[str, str]]:
        """What was asked, without the page of it."""
        return [
            (name, value)
            for name, values in self.given.lists()
            for value in values
            if name not in ("cursor", "limit", "count")
        ]

    def refuse(self, error: InvalidInput) -> None:
        self.errors = error.errors

    @property
    def status(self) -> int:
        return 400 if self.errors else 200
