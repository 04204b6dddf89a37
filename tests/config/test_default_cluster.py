"""The cluster that answers where an address names none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("chosen", "wanted"), [("", "one"), ("two", "two")])
def test_it_is_the_first_one_unless_another_is_named(chosen, wanted, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "YARDMASTER" not in name}
    environment |= {
        "YARDMASTER_HOME": str(tmp_path),
        "YARDMASTER_CLUSTERS": f"one=sqlite:///{tmp_path}/1,two=sqlite:///{tmp_path}/2",
        "YARDMASTER_DEFAULT_CLUSTER": chosen,
    }
    script = "from config import settings; print(settings.DEFAULT_CLUSTER_ID)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted
