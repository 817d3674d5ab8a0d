"""The rules the house is built by: which part may import which, what an import may touch, what a chapter must hold."""

import ast
import re

import nbformat
import pytest
from helpers import CHAPTERS, LIBRARY, MODULES, files, name, python

BELOW = {"core": []}  # part → the parts it may import, bottom up
BELOW["jet"] = ["core"]
for part in "data", "represent", "train", "evaluate":
    BELOW[part] = ["core", "jet"]  # these four do not import one another
for part in "detect", "experiment", "search", "cli":
    BELOW[part] = list(BELOW)
LAZY = [
    "pythia8",
    "fastjet",
    "vector",
    "hdf5plugin",
    "ot",
    "pyhf",
    "iminuit",
    "dask",
    "distributed",
    "tensorboard",
]


def imports(tree, package):
    "Dotted names a module imports, at the top or inside a function, relative ones made absolute."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{a.name}" for a in node.names)


def parse(module):
    return ast.parse(module.read_text(encoding="utf-8"))


def own(module):
    "(part, chapter) of this library that a module imports."
    package = module.relative_to(LIBRARY.parent).with_suffix("").parts[:-1]
    for dotted in imports(parse(module), package):
        head, *rest = dotted.split(".")
        if head == "jet_anomaly" and rest:
            yield rest[0], rest[1] if len(rest) > 1 else None


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_imports_run_one_way(module):
    part = module.relative_to(LIBRARY).with_suffix("").parts[0]
    for other, chapter in own(module):
        if other not in BELOW or part not in BELOW:
            continue
        assert other in (part, *BELOW[part]), (
            f"{name(module)} imports {other}; {part} may import {BELOW[part]}"
        )
        if part == other == "detect":
            shared = (None, "detector", "exposure", "registry", "background", "folder", "inputs")
            shared += ("corrections", "generate")
            assert chapter in shared, (
                f"{name(module)} imports detect.{chapter}: detectors share the contract, and a penalty they may build from their configuration"
            )


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_nothing_unpickles(module):
    unsafe = {
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "dill.load",
        "dill.loads",
        "torch.load",
        "pandas.read_pickle",
        "pd.read_pickle",
    }
    named = unsafe & set(imports(parse(module), ()))
    assert not named, f"{name(module)} imports {named}"
    for node in ast.walk(parse(module)):
        if not isinstance(node, ast.Call):
            continue
        call, keywords = (
            ast.unparse(node.func),
            {k.arg: ast.unparse(k.value) for k in node.keywords},
        )
        if call == "torch.load" and keywords.get("weights_only") == "True":
            continue
        assert call not in unsafe and keywords.get("allow_pickle") != "True", (
            f"{name(module)}:{node.lineno} loads a pickle: {ast.unparse(node)}"
        )


def loaded(module):
    "The modules in memory after an import in a fresh interpreter."
    return set(python("-c", f"import sys, {module}; print(*sys.modules)").splitlines()[-1].split())


def dotted(module):
    return ".".join(module.relative_to(LIBRARY.parent).with_suffix("").parts)


@pytest.mark.parametrize("module", ["jet_anomaly", "jet_anomaly.jet.jets"])
def test_a_light_import(module):
    heavy = {"torch", "pythia8", "fastjet", "requests", "urllib3", "matplotlib", "sklearn"}
    found = heavy & loaded(module)
    assert not found


def test_importing_everything_starts_no_device_and_needs_no_extra():
    code = f"""
import sys
for extra in {LAZY}: sys.modules[extra] = None  # as if it were not installed
import socket
def refuse(*args, **kwargs): raise AssertionError("an import reached for the network")
socket.socket.connect = socket.getaddrinfo = refuse
import importlib
for module in {[dotted(m) for m in MODULES]}: importlib.import_module(module)
import torch
assert not torch.cuda.is_initialized(), "an import started CUDA"
"""
    python("-c", code)


def cells(chapter):
    return [c.source for c in nbformat.read(chapter, as_version=4).cells if c.cell_type == "code"]


def checks(source):
    "Assertions in a cell: `assert`, fastcore's `test_…`, and the `assert_…` of NumPy and torch."
    code = "\n".join(
        " " * (len(line) - len(line.lstrip())) + "pass" if line.lstrip()[:1] in ("!", "%") else line
        for line in source.splitlines()
    )
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assert):
            yield node
        if isinstance(node, ast.Call) and re.match(
            r"(.*\.)?(test|assert)_\w+$", ast.unparse(node.func)
        ):
            yield node


@pytest.mark.parametrize(
    "chapter", [c for c in CHAPTERS if any("#| default_exp" in s for s in cells(c))], ids=name
)
def test_a_chapter_checks_what_it_exports(chapter):
    assert any(True for s in cells(chapter) if "#| export" not in s for _ in checks(s)), (
        f"{name(chapter)} has no assertion outside its exported cells"
    )


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_a_chapter_stands_alone(chapter):
    text = "\n".join(cells(chapter))
    assert not re.search(r"^\s*(from|import)\s+nbdev", text, re.M) and "show_doc" not in text, (
        "a reader on Colab has no nbdev"
    )
    assert "auto" not in name(chapter), (
        "nbdev gives no index to a notebook whose path contains 'auto'"
    )


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_outputs_are_stored_whole(chapter):
    for cell in nbformat.read(chapter, as_version=4).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", (
                f"{name(chapter)}: {cell.id} holds an error, {output.get('ename')}"
            )


def test_no_file_names_a_machine():
    "Paths of one machine: homes, mounts, temporary folders, environments."
    machine = re.compile(
        r"(?<![\w.:/~-])/(?:home|root|Users|work|mnt|tmp|opt|scratch)/[\w.]|/site[-]packages/"
    )
    for f in files():
        if f.suffix in (".png", ".svg", ".h5", ".root", ".gz", ".pkl") or "mathjax" in f.parts:
            continue
        found = machine.search(f.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{name(f)} names a path of one machine: {found[0]}…"
