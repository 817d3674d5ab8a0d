"""Write nbs/back/solutions.ipynb, the answers in words, from the exercises of the chapters:  python nbs/_ext/solutions.py

An answer is what a chapter says after the code of its exercise, or in the comments that begin that code.
"""

import re
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
PAGE = "back/solutions.ipynb"
HEAD = """# Solutions in words
> Compare your answer with ours, exercise by exercise, in the order of reading.

Each title leads to the chapter, where the exercise stands above its code. What an answer rests on is computed there.
"""
EXERCISE = re.compile(r"^## Exercises?\n+(.*)", re.M | re.S)
ONWARD = re.compile(r"^(Next\b|Where to go next)", re.M)


def comments(source):
    "The comments that begin a solution, as one text."
    lines = [line for line in source.splitlines() if not line.startswith("#|")]
    said = []
    for line in lines:
        if not line.startswith("# "):
            break
        said.append(line[2:])
    return " ".join(said)


def answer(cells):
    "What a chapter says of its exercise in words, from the cells after it."
    said = []
    for cell in cells:
        if cell.cell_type == "code":
            said.append(comments(cell.source) if "#| code-fold: true" in cell.source else "")
        elif cell.source.startswith("#"):
            break
        else:
            said.append(ONWARD.split(cell.source)[0].strip())
    return "\n\n".join(filter(None, said))


def exercises(chapter):
    "Title, exercise and answer in words, for each exercise of a chapter that has such an answer."
    cells = nbformat.read(chapter, as_version=4).cells
    title = cells[0].source.splitlines()[0].removeprefix("# ")
    for k, cell in enumerate(cells):
        found = EXERCISE.search(cell.source) if cell.cell_type == "markdown" else None
        if found:
            asked, _, said = found[1].partition("**Answer.**")
            yield title, asked.strip(), said.strip() or answer(cells[k + 1 :])


def elsewhere(text, chapter):
    "Text of a chapter with links that work from this page, and without labels of equations."
    folder = Path(chapter).parent

    def link(m):
        parts = [p for p in (folder / m[1]).parts]
        while ".." in parts:
            k = parts.index("..")
            del parts[k - 1 : k + 1]
        return f"](../{'/'.join(parts)}"

    text = re.sub(r"\]\((?![a-z]+:|#)([^)]+)", link, text)
    return re.sub(r"\s*\{#[\w-]+\}|(?<=in )@(eq|fig)-[\w-]+", "", text)


def page():
    "The page as a notebook."
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    cells = [new_markdown_cell(HEAD.strip(), id="head")]
    for part in book["chapters"][1:]:
        texts = []
        for chapter in part["chapters"]:
            if chapter == PAGE:
                continue
            for title, asked, said in exercises(NBS / chapter):
                if said:
                    text = f"### [{title}](../{chapter})\n\n*Exercise.* {{asked}}\n\n*Answer.* {{said}}"
                    texts.append(
                        text.format(asked=elsewhere(asked, chapter), said=elsewhere(said, chapter))
                    )
        if texts:
            texts.insert(0, f"## {part['part']}")
            key = re.sub(r"\W+", "-", part["part"].lower()).strip("-")
            cells += [new_markdown_cell(t, id=f"{key[:20]}-{k}") for k, t in enumerate(texts)]
    metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return new_notebook(cells=cells, metadata=metadata)


def write():
    "The page as a file."
    nbformat.write(page(), NBS / PAGE)


if __name__ == "__main__":
    write()
