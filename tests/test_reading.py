"""What a reader meets: exercises have answers in words, symbols are those of the notation page, outputs fit the page."""

import ast
import base64
import json
import re
import sys
from collections import defaultdict

import nbformat
import pytest
from helpers import BOOK, CHAPTERS, NBS, name

sys.path.insert(0, str(NBS / "_ext"))
from reader import PAGE, wide, wrapped  # noqa: E402
from solutions import exercises  # noqa: E402

NOTATION = NBS / "start/notation.ipynb"
SYMBOL = re.compile(r"\\?[a-zA-Z]+_(?:\{[^}]*\}|\\?\w+)")
# running indices, operators and names that are said where they stand
INDEX = re.compile(r"_(\{?T?,?[ijklmnt](,?[ijkt]|<j|<j<k|\+1|-1)?\}?|\\mathrm|\\text)$")
HERE = {r"\sum_", r"\prod_", r"\log_2", r"\min_", r"R_0", r"\nabla_\theta", r"\tau_1", r"\tau_2"}


def texts(chapter):
    nb = json.loads(chapter.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown"]


def test_exercises_have_answers_in_words():
    chapters = [c for part in BOOK["chapters"][1:] for c in part["chapters"]]
    short = [
        (c, asked[:60])
        for c in chapters
        if c.endswith(".ipynb")
        for _, asked, said in exercises(NBS / c)
        if len(said) < 40
    ]
    assert not short, short


def large(chapter):
    "Cells that are not run here, and would start something where all cells are run."
    idle = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef
    for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if "#| eval: false" not in source or "pip install" in source:
            continue
        if re.search(r"^[%!]", source, re.M):  # a command of the notebook
            yield cell["id"]
            continue
        source = re.sub(r"^( +)[%!].*", r"\1command()", source, flags=re.M)  # where Python has one
        for part in ast.parse(source).body:
            calls = any(isinstance(n, ast.Call) for n in ast.walk(part))
            if calls and not isinstance(part, idle) and "FULL" not in ast.unparse(part):
                yield cell["id"]


def test_what_takes_long_waits_for_the_switch():
    found = {name(chapter): list(large(chapter)) for chapter in CHAPTERS}
    assert not {c: cells for c, cells in found.items() if cells}


def test_symbols_of_several_chapters_are_in_the_notation():
    used, there = defaultdict(set), "\n".join(texts(NOTATION))
    for chapter in CHAPTERS:
        for formula in re.findall(r"\$+([^$]+)\$+", "\n".join(texts(chapter))):
            for symbol in SYMBOL.findall(formula):
                used[symbol].add(name(chapter))
    assert not {s for s in used if s.startswith((r"\varepsilon_", "m_{JJ}"))}  # one way to write it
    missing = {
        symbol: sorted(where)[:4]
        for symbol, where in used.items()
        if len(where) > 3 and symbol not in there and not INDEX.search(symbol)
    }
    assert not {s for s in missing if not any(s.startswith(h) for h in HERE)}, missing


@pytest.mark.parametrize(
    "text, lines", [("a  b " + "c " * PAGE, 1), ("word " * PAGE, 6), ("short", 1)]
)
def test_long_lines_of_output_go_on_below_unless_they_have_columns(text, lines):
    assert len(wrapped(text).split("\n")) == lines


@pytest.mark.parametrize("width, height, panels", [(1100, 300, True), (500, 200, False)])
def test_a_row_of_panels_is_known_by_its_shape(width, height, panels):
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data = {"image/png": base64.b64encode(png + bytes(40)).decode()}
    output = nbformat.v4.new_output("display_data", data)
    assert wide(nbformat.v4.new_code_cell("plot()", outputs=[output])) == panels
