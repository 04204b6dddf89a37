"""`python -m tests.ui.screenshots`."""

from tests.ui.screenshots import main

main()
