"""What an address asks a list for: the native API's own words, checked by its own forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from django.http import HttpRequest
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.fields import read_query
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

    def turner(self, request: HttpRequest) -> Request:
        """The request as the paging of lists reads it."""
        return cast(Request, SimpleNamespace(query_params=self.given, path=request.path))

    def refuse(self, error: InvalidInput) -> None:
        self.errors = error.errors

    @property
    def status(self) -> int:
        return 400 if self.errors else 200
