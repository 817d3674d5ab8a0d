"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out."""

from contextlib import nullcontext

import pytest
from elsewhere import gpu
from helpers import CHAPTERS, name, run_chapter

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
    around = gpu if name(chapter) in ON_A_GPU else nullcontext
    run_chapter(processes, chapter, tmp_path / "output", around)
