"""Fixtures shared by several files: the cache of the test run, the built book."""

import multiprocessing
import os
import re
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; before PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers import python


def pytest_configure(config):
    "Test processes share a cache of the test run; before tests import the library, whose kernels then look where to go."
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault(
            "JET_ANOMALY_CACHE", str(Path(config.option.basetemp).parent / "cache")
        )


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    "What tests simulate goes into a folder of the test run, not into the user's cache."
    os.environ.setdefault("JET_ANOMALY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


# Groups that begin first: the longest, and the one that compiles most kernels, which the others then find in the cache.
FIRST = "book", "prongs", "simulate", "types"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Put the tests in order, before they are dealt out to the test processes."

    def rank(item):
        group = next((m.args[0] for m in item.iter_markers("xdist_group")), None)
        return FIRST.index(group) if group in FIRST else len(FIRST)

    for item in items:
        if "dcor" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("dcor"))
    items.sort(key=rank)


@pytest.fixture(scope="session")
def dcor():
    "An independent package that compiles itself for seconds when it is imported: in one test process only."
    return pytest.importorskip("dcor")


# what most chapters and commands import; their processes start as copies of one that has them
HEAVY = "nbdev.test torch accelerate matplotlib.pyplot numba scipy.stats sklearn.ensemble h5py"


@pytest.fixture(scope="session")
def processes(cache):
    "Processes that begin with the heavy imports done; forked from one that runs nothing, so that no lock is held."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY.split())
    with pytest.MonkeyPatch.context() as patch:  # the server keeps the environment it starts with
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("OMP_NUM_THREADS", "1")
        first = context.Process(target=abs, args=(0,))
        first.start()
        first.join()
    return context


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
