"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out."""

import pytest
from helpers import CHAPTERS, name, python

RUN = """
import sys
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
config = get_config()
ok, seconds = test_nb(Path(sys.argv[1]), skip_flags=config.tst_flags.split(), basepath=config.config_path)
sys.exit(not ok)
"""


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_chapter(chapter):
    python("-c", RUN, chapter, timeout=600, OMP_NUM_THREADS="1")
