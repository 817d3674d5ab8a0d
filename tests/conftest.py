"""Fixtures shared by several files: the cache of the test run, the built book."""

import multiprocessing
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

# hundreds of processes import the same modules: each module is compiled once, whatever the environment says
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; before PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers import preloaded, python


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="play a GPU also where it takes minutes")


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
# Then the chapters, which take long: the short tests of the others keep all test processes busy to the end.
LONG = "test_notebooks.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Put the tests in order, before they are dealt out to the test processes."

    def rank(item):
        group = next((m.args[0] for m in item.iter_markers("xdist_group")), None)
        return (FIRST.index(group), 0) if group in FIRST else (len(FIRST), item.path.name != LONG)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def dcor():
    "An independent package, as the Python code it is: compiling it, which it does when imported, takes long."
    with pytest.MonkeyPatch.context() as patch:
        for name in "njit", "guvectorize":
            patch.setattr(f"numba.{name}", lambda *types, **options: lambda function: function)
        return pytest.importorskip("dcor")


@contextmanager
def one_core():
    "Within it, this test process has a core of its own, and so has, for ever, what it starts."
    if "PYTEST_XDIST_WORKER" not in os.environ or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores, number = os.sched_getaffinity(0), int(os.environ["PYTEST_XDIST_WORKER"][2:])
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def processes(cache):
    "Processes that begin with the heavy imports done; forked from one that runs nothing, so that no lock is held."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preload"])
    # the server keeps the environment it starts with; on one core, simulations start no processes of their own
    with pytest.MonkeyPatch.context() as patch, one_core():
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        first = context.Process(target=preloaded)
        first.start()
        first.join()
    assert first.exitcode == 0, "tests/preload.py was not imported"
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
