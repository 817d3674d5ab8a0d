"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out.

Each runs as on somebody else's machine (`colab.py`): with the packages that its install cell names and no others, on a
GPU that the CPU plays, and without Pythia 8 and FastJet where the packaged jets are enough.
"""

from functools import partial

import pytest
from colab import GENERATORS, cells, colab, installed
from helpers import CHAPTERS, NBS, name, run_chapter

WITH_GENERATORS = {  # they simulate what the package does not hold, cluster events, or check against FastJet
    "cli/main",
    "data/cluster",
    "data/formats",
    "data/frames",
    "data/hepmc",
    "data/processes",
    "data/read",
    "data/response",
    "data/shards",
    "data/simulate",
    "data/toys",
    "detect/channels",
    "detect/tables",
    "jet/events",
    "jet/history",
    "jet/shapes",
    "jet/subjets",
    "jet/substructure",
    "jet/tree",
    "studies/displaced_tracks",
    "studies/hadronic_resonances",
    "studies/pseudo_decays",
    "studies/search",
    "studies/vae_jet",
    "studies/vrnn",
}
# their network has so many small operations that to play them takes minutes
ON_A_CPU = {"detect/vrnn", "studies/vrnn"}


def short(chapter):
    return chapter.relative_to(NBS).with_suffix("").as_posix()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_chapter(chapter, processes, tmp_path):
    where = dict(
        generators=short(chapter) in WITH_GENERATORS, device=short(chapter) not in ON_A_CPU
    )
    run_chapter(processes, chapter, tmp_path / "output", partial(colab, chapter, tmp_path, **where))


def test_chapters_that_simulate_install_the_generators():
    chapters = {short(c): c for c in CHAPTERS}
    assert {*chapters} >= WITH_GENERATORS | ON_A_CPU
    for found in WITH_GENERATORS:
        assert GENERATORS <= installed(cells(chapters[found])), found
