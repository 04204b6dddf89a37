"""What the ORM does not say of itself: one of very many ids, and a moment by chance."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.models import Value


@models.ForeignKey.register_lookup
@models.UUIDField.register_lookup
class AnyOf(models.Lookup):
    """One of many ids, as one parameter: a thousand take a while to be written one by one."""

    lookup_name = "any_of"
    prepare_rhs = False

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        column, parameters = self.process_lhs(compiler, connection)
        ids = ",".join(map(str, self.rhs))
        return f"{column} = ANY(%s::uuid[])", [*parameters, f"{{{ids}}}"]

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        column, parameters = self.process_lhs(compiler, connection)
        ids = json.dumps([pk.hex for pk in self.rhs])
        each = "(SELECT value FROM json_each(%s))"
        return f"{column} IN {each}", [*parameters, ids]


class RandomMoment(models.Func):
    """A moment between now and so many seconds from now, another one for each row."""

    output_field = models.DateTimeField()

    def __init__(self, seconds: float) -> None:
        super().__init__(Value(seconds, models.FloatField()))

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "STATEMENT_TIMESTAMP() + random() * %(expressions)s * interval '1 second'"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        fraction = "(random() / 18446744073709551616.0 + 0.5)"
        template = (
            f"strftime('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'now', ({fraction} * %(expressions)s)"
            " || ' seconds')"
        )
        return self.as_sql(compiler, connection, template=template, **context)
