"""Which play is given on which cluster."""

from jobs.demo.letters import LETTERS
from jobs.demo.wages import WAGES

OF_CLUSTERS = {"notifications": LETTERS, "payroll": WAGES}
PLAYS = (LETTERS, WAGES)
