"""Branch coverage of the library by its own tests and chapters:  python tests/long/branches.py [--folder build/coverage]

A chapter's cells are the source of its module, so that running a chapter does not run the module. In a copy of the
checkout, cells that are exported are replaced by the names of the module: the chapter's checks then try the library.
Compiled kernels are not seen by the measurement; the tests of what has kernels run a second time without compiling.
Needs the package coverage, 7.10 or newer. Prints a table, the least covered modules first.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from helpers import copy  # noqa: E402

SETTINGS = """[run]
branch = true
parallel = true
source = jet_anomaly
concurrency = multiprocessing, thread
patch = subprocess, _exit
[report]
exclude_also =
    if TYPE_CHECKING:
    raise NotImplementedError
omit = */_modidx.py
"""
NAMES = """import importlib as _importlib
_module = _importlib.import_module("jet_anomaly.{}")
_found = {{k: getattr(_module, k, None) for k in {}}}
globals().update({{k: v for k, v in _found.items() if v is not None}})  # None where @patch gave a method to its class
"""
# what reads the sources, builds the book, or times processes
APART = "book browser sync style house types package install promises requirements".split()
COMPILED = "represent numbers scaling_weights"


def module_of(cells):
    "The module that a chapter exports to, None where it has none."
    found = re.search(r"^#\| default_exp ([\w.]+)", "\n".join(cells), re.M)
    return found and found[1]


def bound(source):
    "Names that a cell defines or imports."
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return [s.get_name() for s in symbols if s.is_assigned() or s.is_imported()]


def convert(chapter):
    "Replace what an exported cell of a chapter defines by the same names of its module; whether there were any."
    nb = json.loads(chapter.read_text(encoding="utf-8"))
    module = module_of(["".join(c["source"]) for c in nb["cells"]])
    exported = [c for c in nb["cells"] if re.match(r"#\|\s*export", "".join(c["source"]))]
    for cell in exported:
        cell["source"] = NAMES.format(module, bound("".join(cell["source"])))
    chapter.write_text(json.dumps(nb), encoding="utf-8")
    return bool(exported)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build/coverage")
    parser.add_argument("--processes", default="logical", help="of pytest")
    args, more = parser.parse_known_args()  # what it does not know goes to pytest
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    place = copy(args.folder.resolve() / "checkout")
    (place / ".coveragerc").write_text(SETTINGS)
    chapters = sorted(place.glob("nbs/**/*.ipynb"))
    kernels = [p for p in chapters if re.search(r'"@jit\b', p.read_text(encoding="utf-8"))]
    chapters = [p for p in chapters if convert(p)]
    print(f"{len(chapters)} chapters try the library", flush=True)
    env = os.environ | {"PYTHONPATH": str(place), "COVERAGE_RCFILE": str(place / ".coveragerc")}
    python = (sys.executable, "-m", "coverage")
    pytest = (*python, "run", "-m", "pytest", "-q", "-n", args.processes)
    rest = [f"--ignore=tests/test_{name}.py" for name in APART]
    failed = subprocess.run([*pytest, *rest, *more], cwd=place, env=env).returncode
    only = [f"tests/test_notebooks.py::test_chapter[{p.relative_to(place)}]" for p in kernels]
    only += [f"tests/test_{name}.py" for name in COMPILED.split()]
    slow = env | {"NUMBA_DISABLE_JIT": "1"}  # some tests compare with compiled code, and fail
    subprocess.run([*pytest, *only, *more], cwd=place, env=slow)
    subprocess.run([*python, "combine", "-q"], cwd=place, env=env)
    subprocess.run([*python, "report", "--sort=cover", "--skip-covered"], cwd=place, env=env)
    sys.exit(failed)
