"""Every chapter runs from top to bottom, as `nbdev_test` runs it: cells marked `eval: false` are left out."""

import os
import signal

import pytest
from helpers import CHAPTERS, execute, name


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
