"""What the library imports is declared in settings.ini, and the pinned sets lie within the declared ranges."""

import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions

import pytest
from helpers import LIBRARY, MODULES, ROOT, name
from packaging.requirements import Requirement
from packaging.version import Version

config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
DECLARED = {
    k.removesuffix("requirements").rstrip("_"): [Requirement(r) for r in v.split()]
    for k, v in config["DEFAULT"].items()
    if k.endswith("requirements")
}
DISTRIBUTIONS = packages_distributions()


def normal(package):
    return re.sub(r"[-_.]+", "-", package).lower()


def named(parts):
    return {normal(r.name) for p in parts for r in DECLARED[p]}


def third_party(module):
    "(package, imported when the module is) of what a module imports from outside."
    tree = ast.parse(module.read_text(encoding="utf-8"))
    top = {id(n) for n in tree.body}
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for root in {n.split(".")[0] for n in names} - {LIBRARY.name, "__future__"}:
            if root not in sys.stdlib_module_names:
                yield root, id(node) in top


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_imports_are_declared(module):
    for root, at_import in third_party(module):
        packages = {normal(p) for p in DISTRIBUTIONS.get(root, [root])}
        parts = [""] if at_import else DECLARED
        assert packages & named(parts), (
            f"{name(module)} imports {root}, which {'requirements' if at_import else 'settings.ini'} "
            f"does not name"
        )


def pins(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w.-]+)==([\w.!+]+)", line) for line in lines)
    return {normal(m[1]): Version(m[2]) for m in found if m}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_pins_are_within_the_ranges(file):
    pinned = pins(file)
    for part in DECLARED.values():
        for r in part:
            if normal(r.name) in pinned:
                assert r.specifier.contains(pinned[normal(r.name)]), (
                    f"{file} pins {r.name} outside {r.specifier}"
                )


def test_the_lowest_set_is_the_lowest():
    lowest = pins("constraints-lowest.txt")
    for r in DECLARED[""]:
        floor = max(Version(s.version) for s in r.specifier if s.operator == ">=")
        assert lowest[normal(r.name)].release[:2] == floor.release[:2], (r, lowest[normal(r.name)])
