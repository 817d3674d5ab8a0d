"""The style of the code and of the chapters: ruff, the width of lines, the length of cells, one language."""

import ast
import re
import sys

import nbformat
import pytest
from helpers import CHAPTERS, MODULES, ROOT, name, run

LONG = 40  # lines of a cell
FOLDED = 30  # lines of an export that a reader need not see at once


@pytest.mark.parametrize("what", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_is_content(what):
    run(sys.executable, "-m", "ruff", *what, "nbs", "tests", cwd=ROOT)


def test_lines_fit_the_page():
    lines = [line for m in MODULES for line in m.read_text(encoding="utf-8").splitlines()]
    wide = [line for line in lines if len(line) > 120]
    assert len(wide) <= 0.02 * len(lines), f"{len(wide)} of {len(lines)} lines are over 120 wide"
    assert not [line for line in wide if len(line) > 160]


def code_cells(chapter):
    return [c for c in nbformat.read(chapter, as_version=4).cells if c.cell_type == "code"]


def statements(source):
    "Top-level statements of a cell; shell commands and magics count as one."
    code = "\n".join("pass" if line[:1] in ("!", "%") else line for line in source.splitlines())
    return len(ast.parse(code).body)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_a_cell_is_read_in_one_go(chapter):
    "Forty lines at most; a single longer definition or table is folded, and so is any export of more than thirty."
    for cell in code_cells(chapter):
        directives = [line for line in cell.source.splitlines() if line.startswith("#|")]
        n, folded = (
            len(cell.source.splitlines()) - len(directives),
            "#| code-fold: true" in directives,
        )
        assert n <= LONG or (folded and statements(cell.source) == 1), (
            f"{name(chapter)}, cell {cell.id}: {n} lines; cut it, or fold it if it is one definition"
        )
        assert n <= FOLDED or folded or "#| export" not in directives, (
            f"{name(chapter)}, cell {cell.id}: an export of {n} lines is to be folded"
        )


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_no_c_in_strings(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(
                r"#include\s*<|\b(?:float|double|void|int) \w+\(.*\)\s*\{", node.value
            ), f"{name(module)}:{node.lineno} holds C in a string"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_every_figure_has_a_caption_and_says_what_is_seen(chapter):
    "`fig-cap` says what is drawn, `fig-alt` what a reader who cannot see it would miss."
    for cell in code_cells(chapter):
        if not any(k.startswith("image/") for o in cell.outputs for k in o.get("data", {})):
            continue
        said = dict(re.findall(r'^#\| (fig-cap|fig-alt): "?(.+?)"?$', cell.source, re.M))
        lacks = {"fig-cap", "fig-alt"} - {k for k, v in said.items() if len(v.split()) >= 4}
        assert not lacks, f"{name(chapter)}, cell {cell.id} draws, and lacks {sorted(lacks)}"
        assert said["fig-cap"] != said["fig-alt"], (
            f"{name(chapter)}, cell {cell.id}: twice the same"
        )
