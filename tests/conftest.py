"""Fixtures shared by several files: the cache of the test run, the built book."""

import os
import re

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; before PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers import python


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    "What tests simulate goes into a folder of the test run, not into the user's cache."
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ.setdefault("JET_ANOMALY_CACHE", str(shared / "cache"))


BUILD = """
import sys
from jupyter_book.cli.main import main
sys.argv[1:] = ["build", "nbs", "--path-output", sys.argv[1], "-W", "--keep-going", "-q"]
main()
"""


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    "Where the book is, and what went wrong when it was built."
    out = tmp_path_factory.mktemp("book")
    try:
        python("-c", BUILD, out, timeout=1200)
    except pytest.fail.Exception as e:
        return out, re.sub(r"\x1b\[[\d;]*m", "", str(e))
    return out / "_build/html", None


@pytest.fixture(scope="session")
def site(build):
    if build[1]:
        pytest.skip("the book was not built")
    return build[0]
