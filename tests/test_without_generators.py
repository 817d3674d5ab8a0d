"""Chapters run where Pythia 8 and FastJet are not installed and nothing is in the cache: with the packaged jets."""

import os
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from helpers import NBS, run_chapter

GENERATORS = "pythia8mc", "fastjet"
CHAPTERS = ["tour", "detect/vae", "evaluate/metrics", "represent/sequences", "start/tag"]


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in GENERATORS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def without_generators(cache):
    "Within it, this process cannot import the generators, and has a cache of its own."
    assert not {m.split(".")[0] for m in sys.modules} & {*GENERATORS, "jet_anomaly"}
    sys.meta_path.insert(0, Refuse())
    os.environ["JET_ANOMALY_CACHE"] = str(cache)
    yield


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_needs_no_generator(chapter, processes, tmp_path):
    for kernels in Path(os.environ["JET_ANOMALY_CACHE"]).glob("kernels-*"):
        ignored = shutil.ignore_patterns("*.tmp.*")  # another process may be writing
        shutil.copytree(kernels, tmp_path / "cache" / kernels.name, ignore=ignored)
    around = partial(without_generators, tmp_path / "cache")
    run_chapter(processes, NBS / f"{chapter}.ipynb", tmp_path / "output", around)
