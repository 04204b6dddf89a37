"""What expressions can call. FUNCTIONS take plain values, LOOPS a predicate too; both by name.

Each gets the run and its arguments and checks them itself. Room is asked for before anything is made.
"""

# Each registers its functions.
from jobs.expressions.functions import conversions, dates, lists, numbers, texts  # noqa: F401
from jobs.expressions.functions.arguments import FUNCTIONS, Function
from jobs.expressions.functions.predicates import LOOPS, WITHOUT_PREDICATE

__all__ = ["FUNCTIONS", "LOOPS", "WITHOUT_PREDICATE", "Function"]
