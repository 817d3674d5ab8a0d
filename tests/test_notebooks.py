"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out.

Each runs as on somebody else's machine (`colab.py`): with the packages that its install cell names and no others, without
Pythia 8 and FastJet where the packaged jets are enough, and on a GPU that the CPU plays where it uses a device at all.
"""

import re
from functools import partial

import pytest
from colab import GENERATORS, cells, colab, hidden_from, installed
from helpers import CHAPTERS, NBS, name, python, run_chapter

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
# so many small operations that to play them takes too long here; `pytest --gpu` does
ON_A_CPU = {
    "detect/ebm_clf",
    "detect/ebm_diagnosis",
    "detect/ebm_published",
    "detect/generate",
    "detect/lstm_vae",
    "detect/vrnn",
    "studies/vrnn",
}
DEVICE = re.compile(
    r"jet_anomaly\.(detect|train|experiment|cli)|default_exp (detect|train|experiment|cli)|\bdevice\b"
)


def short(chapter):
    return chapter.relative_to(NBS).with_suffix("").as_posix()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_chapter(chapter, processes, tmp_path, request):
    here = set() if request.config.getoption("gpu", False) else ON_A_CPU
    on_a_device = short(chapter) not in here and DEVICE.search("\n".join(cells(chapter)))
    where = dict(generators=short(chapter) in WITH_GENERATORS, device=bool(on_a_device))
    run_chapter(processes, chapter, tmp_path / "output", partial(colab, chapter, **where))


def test_chapters_that_simulate_install_the_generators():
    chapters = {short(c): c for c in CHAPTERS}
    assert {*chapters} >= WITH_GENERATORS | ON_A_CPU
    for found in WITH_GENERATORS:
        assert GENERATORS <= installed(cells(chapters[found])), found


def test_what_a_chapter_does_not_install_cannot_be_imported():
    tour, bump = NBS / "tour.ipynb", NBS / "search/bump.ipynb"
    assert hidden_from(tour, False) >= GENERATORS | {"pyhf", "onnx"}
    assert not hidden_from(tour, True) & (GENERATORS | {"numpy"})
    assert not hidden_from(bump, False) & {"pyhf", "iminuit"}
    python(
        "-c",
        "import importlib.util, sys; sys.path.insert(0, 'tests'); from colab import without\n"
        "with without({'pyhf'}):\n"
        "    found = [importlib.util.find_spec(m) for m in ('pyhf', 'iminuit')]\n"
        "assert found[0] is None and found[1] is not None",
    )
