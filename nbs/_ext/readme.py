"""Write README.md from the title page of the book:  python nbs/_ext/readme.py"""

import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
DIRECTIVE = re.compile(r"^#\|\s*(\S+?):?(?:\s+(.*))?$", re.M)
LINK = re.compile(r"(\]\(|(?:src|href)=\")(?![a-z]+:|#|/)")


def visible(cell):
    "A cell as a reader sees it, or nothing when it is hidden."
    flags = dict(DIRECTIVE.findall(cell.source)) if cell.cell_type == "code" else {}
    if {"hide", "default_exp"} & flags.keys() or flags.get("include") == "false":
        return None
    cell.source = DIRECTIVE.sub("", cell.source).strip() if flags else cell.source
    if flags.get("echo") == "false":
        cell.metadata["transient"] = {"remove_source": True}
    return cell


def readme(index):
    "The title page as Markdown whose links work from the root of the repository."
    nb = nbformat.read(index, as_version=4)
    nb.cells = [c for c in map(visible, nb.cells) if c is not None]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return LINK.sub(r"\1nbs/", re.sub(r"\n{3,}", "\n\n", text)).strip() + "\n"


if __name__ == "__main__":
    note = "<!-- written by nbs/_ext/readme.py from nbs/index.ipynb: edit that -->\n"
    (ROOT / "README.md").write_text(note + readme(ROOT / "nbs/index.ipynb"), encoding="utf-8")
