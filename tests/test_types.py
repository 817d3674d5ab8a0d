"""The types of the library, as mypy sees them: names, numbers of arguments, returned values (mypy.ini says what not)."""

import sys

import pytest
from helpers import ROOT, run


@pytest.mark.xdist_group("types")
def test_types_are_consistent(tmp_path):
    run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path, "jet_anomaly", cwd=ROOT)
