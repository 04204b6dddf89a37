"""Print the OpenAPI document of the native API; `make openapi` keeps it in the repository."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from jobs.api.documentation import native_document_text


class Command(BaseCommand):
    help = "Print the OpenAPI document of the native API, as every server of this version has it."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(native_document_text(), ending="")
