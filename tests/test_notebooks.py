"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out."""

import multiprocessing
import os
import signal

import pytest
from helpers import CHAPTERS, execute, name

# what most chapters import; a chapter's process starts as a copy of one that has them
HEAVY = "nbdev.test torch accelerate matplotlib.pyplot numba scipy.stats sklearn.ensemble h5py"


@pytest.fixture(scope="module")
def processes():
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


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_chapter(chapter, processes, tmp_path):
    output = tmp_path / "output"
    process = processes.Process(target=execute, args=(str(chapter), str(output)))
    process.start()
    process.join(600)
    if process.exitcode != 0:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        said = output.read_text()[-8000:] if output.is_file() else ""
        pytest.fail(f"exit {process.exitcode}: {name(chapter)}\n{said}", pytrace=False)
