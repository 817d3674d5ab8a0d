"""The types of the library, as mypy sees them: names, numbers of arguments, returned values (mypy.ini says what not)."""

import sys

from helpers import ROOT, run


def test_types_are_consistent(tmp_path):
    run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path, "jet_anomaly", cwd=ROOT)
