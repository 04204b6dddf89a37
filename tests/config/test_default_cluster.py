"""The cluster that answers where an address names none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clusters.management.installation import write_demo_clusters


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


@pytest.mark.parametrize(
    ("named", "wanted"),
    [({}, "payroll"), ({"YARDMASTER_CLUSTERS": "one=sqlite:///nowhere/1"}, "one")],
)
def test_other_commands_are_about_the_clusters_that_up_has_made(named, wanted, tmp_path):
    write_demo_clusters(tmp_path)
    environment = {name: value for name, value in os.environ.items() if "YARDMASTER" not in name}
    environment |= {"YARDMASTER_HOME": str(tmp_path), **named}
    script = "from config import settings; print(next(iter(settings.CLUSTERS)))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted
