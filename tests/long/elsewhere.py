"""Run chapters on a GPU that is played by the CPU (tests/elsewhere.py):  python tests/long/elsewhere.py nbs/detect/*.ipynb

One line a chapter: its name, the seconds it took, and the end of its output where it stopped.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def execute(chapter, output):
    "All cells of a chapter that are not marked `eval: false`, on the GPU that is not there."
    import helpers
    from elsewhere import gpu

    helpers.execute(chapter, output, gpu)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=600, help="seconds a chapter may take")
    args = parser.parse_args()
    os.environ |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    failed = 0
    for chapter in args.chapters:
        with tempfile.TemporaryDirectory() as folder:
            began, output = time.time(), Path(folder) / "output"
            process = multiprocessing.get_context("spawn").Process(
                target=execute, args=(chapter.resolve(), output)
            )
            process.start()
            process.join(args.timeout)
            ended = process.exitcode
            if ended is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.join()
            word = {0: "ran", None: "took too long"}.get(ended, "stopped")
            print(f"{chapter}: {word}, {time.time() - began:.0f} s", flush=True)
            if ended:
                print(output.read_text()[-2500:], flush=True)
            failed += ended != 0
    sys.exit(failed > 0)
