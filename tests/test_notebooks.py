"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out."""

import os
import signal
from contextlib import nullcontext

import pytest
from elsewhere import gpu
from helpers import CHAPTERS, execute, name

# run on a GPU that the CPU plays; the other chapters with models do so in tests/long/elsewhere.py, which takes longer
ON_A_GPU = {
    f"nbs/{chapter}.ipynb"
    for chapter in (
        "tour",
        "start/tag",
        "detect/baselines",
        "detect/vae",
        "train/checkpoint",
        "train/disk",
        "experiment/trials",
    )
}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_chapter(chapter, processes, tmp_path):
    output = tmp_path / "output"
    around = gpu if name(chapter) in ON_A_GPU else nullcontext
    process = processes.Process(target=execute, args=(str(chapter), str(output), around))
    process.start()
    process.join(600)
    if process.exitcode != 0:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        said = output.read_text()[-8000:] if output.is_file() else ""
        pytest.fail(f"exit {process.exitcode}: {name(chapter)}\n{said}", pytrace=False)
