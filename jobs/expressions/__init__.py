"""Expressions in texts: `{{ inputs.region }}`, `{{ len(tasks.rows) > 0 }}`.

The language is the part of expr-lang 1.17 that docs/expressions.md names; values go in and come out as
JSON can hold them. `bounds` says what an expression may cost, `grammar` reads it, `nodes` is its tree,
`operators` and `functions` are what it can do, `values` and `dates` what it does it with.
"""

from jobs.expressions.bounds import ExpressionError, spent
from jobs.expressions.templates import (
    Expression,
    Template,
    compile,  # noqa: A004
    evaluate_list,
    is_false,
    unbraced,
)

__all__ = [
    "Expression",
    "ExpressionError",
    "Template",
    "compile",
    "evaluate_list",
    "is_false",
    "spent",
    "unbraced",
]
