"""Chapters run where Pythia 8 and FastJet are not installed and nothing is in the cache: with the packaged jets."""

import pytest
from helpers import NBS, python

RUN = """
import sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pythia8mc", "fastjet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())

from nbdev.config import get_config
from nbdev.test import test_nb
config = get_config()
ok, seconds = test_nb(Path(sys.argv[1]), skip_flags=config.tst_flags.split(), basepath=config.config_path)
sys.exit(not ok)
"""
CHAPTERS = ["tour", "detect/vae", "evaluate/metrics", "represent/sequences", "start/tag"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_needs_no_generator(chapter, tmp_path):
    python(
        "-c", RUN, NBS / f"{chapter}.ipynb", JET_ANOMALY_CACHE=str(tmp_path), OMP_NUM_THREADS="1"
    )
