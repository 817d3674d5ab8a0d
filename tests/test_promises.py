"""Short runs of the long campaigns: every kind of kill and of damage is tried, a few times each."""

import os
import tarfile

import pytest
from helpers import ROOT, python

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux")


def test_killed_runs_go_on_to_the_same_result():
    unpacks = ["fetch"] if hasattr(tarfile, "data_filter") else []  # not before Python 3.11.4
    python(
        ROOT / "tests/long/kills.py",
        *("--kills", 20, "--seconds", 15, "--verbs", "read", *unpacks, "score", "train"),
        timeout=200,
    )


def test_damaged_files_end_in_documented_errors():
    python(ROOT / "tests/long/mutations.py", "--mutations", 180, "--seed", 5, timeout=300)
