"""What expressions can call. FUNCTIONS take plain values, LOOPS a predicate too; both by name.

Each gets the run and its arguments and checks them itself. Room is asked for before anything is made.
"""

from jobs.expressions.functions import conversions, dates, lists, numbers, texts
from jobs.expressions.functions.arguments import FUNCTIONS, Function
from jobs.expressions.functions.predicates import LOOPS, WITHOUT_PREDICATE

__all__ = [
    "FUNCTIONS",
    "LOOPS",
    "WITHOUT_PREDICATE",
    "Function",
    "conversions",
    "dates",
    "lists",
    "numbers",
    "texts",
]
