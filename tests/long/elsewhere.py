"""Run chapters on a GPU that is played by the CPU (tests/elsewhere.py):  python tests/long/elsewhere.py nbs/detect/*.ipynb

One line a chapter: its name, the CPU seconds that it took, and the end of its output where it stopped; `--plain` runs
them on the CPU that is there, for comparison.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def execute(chapter, output, plain):
    "All cells of a chapter that are not marked `eval: false`, on the GPU that is not there."
    import helpers
    from elsewhere import gpu

    helpers.execute(chapter, output, contextlib.nullcontext if plain else gpu)


def spent():
    "CPU seconds of the processes that ended."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=600, help="seconds a chapter may take")
    parser.add_argument("--plain", action="store_true", help="on the CPU that is there")
    args = parser.parse_args()
    os.environ |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    failed = 0
    for chapter in args.chapters:
        with tempfile.TemporaryDirectory() as folder:
            began, output = spent(), Path(folder) / "output"
            process = multiprocessing.get_context("spawn").Process(
                target=execute, args=(chapter.resolve(), output, args.plain)
            )
            process.start()
            process.join(args.timeout)
            ended = process.exitcode
            if ended is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.join()
            word = {0: "ran", None: "took too long"}.get(ended, "stopped")
            print(f"{chapter}: {word}, {spent() - began:.0f} CPU-s", flush=True)
            if ended:
                print(output.read_text()[-2500:], flush=True)
            failed += ended != 0
    sys.exit(failed > 0)
