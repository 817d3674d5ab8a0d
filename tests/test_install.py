"""What a chapter imports, its install cell installs; and nothing that Colab has is replaced by it, but Numba."""

import ast
import importlib.util
import re
import sys

import pytest
from colab import cells, installed, known, settings
from helpers import CHAPTERS, name
from packaging.requirements import Requirement

COLAB = {  # what its machines of autumn 2025 had
    "torch": "2.6.0",
    "numpy": "2.0.2",
    "matplotlib": "3.10.0",
    "scipy": "1.16.1",
    "scikit-learn": "1.6.1",
    "h5py": "3.14.0",
    "requests": "2.32.4",
}
THERE = {"IPython"}  # in every notebook
OTHER_NAMES = {"sklearn": "scikit-learn", "ot": "pot"}


def imported(source):
    "Modules that a cell imports from outside the standard library, but for those that it tries to import."
    tree = ast.parse(re.sub(r"^[!%].*$", "", source, flags=re.M))
    tried = {
        b for n in ast.walk(tree) if isinstance(n, ast.Try) for x in n.body for b in ast.walk(x)
    }
    for node in set(ast.walk(tree)) - tried:
        if isinstance(node, ast.Import):
            yield from (a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_a_chapter_installs_what_it_imports(chapter):
    sources = cells(chapter)
    have = installed(sources)
    if have is None:
        pytest.skip("it has no install cell: it needs none, or a page beside it says how")
    modules = {m for s in sources if "#| eval: false" not in s for m in imported(s)}
    own = {
        m for m in modules if importlib.util.find_spec(m) is None
    }  # files that the chapter wrote
    others = modules - own - THERE - {"jet_anomaly"} - set(sys.stdlib_module_names)
    assert {known(OTHER_NAMES.get(m, m)) for m in others} <= have


def test_colab_keeps_its_packages():
    asked = {r.name.lower(): r for r in map(Requirement, settings()["requirements"].split())}
    for package, version in COLAB.items():
        assert version in asked[package].specifier, f"{package} {version} would be replaced"
