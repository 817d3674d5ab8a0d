"""Write what follows from _quarto.yml, the master: nbs/_toc.yml, which Jupyter Book reads, and the page of solutions.

Run as  python nbs/_ext/toc.py. The parts and chapters are those of _quarto.yml; the pages only Jupyter Book makes
(API, bibliography) go to the last part, Back.
"""

from pathlib import Path

import solutions
import yaml

ROOT = Path(__file__).resolve().parents[2]
NBS, LIBRARY = ROOT / "nbs", ROOT / "jet_anomaly"
PARTS = [
    "core",
    "jet",
    "data",
    "represent",
    "train",
    "evaluate",
    "detect",
    "experiment",
    "search",
    "cli",
]  # in the order in which they may import one another


def files(chapters):
    return [{"file": str(Path(c).with_suffix(""))} for c in chapters]


def toc(book):
    "The table of contents of Jupyter Book for the `book` of _quarto.yml."
    front, *rest = book["chapters"]
    parts = [{"caption": c["part"], "chapters": files(c["chapters"])} for c in rest]
    if not parts or parts[-1]["caption"] != "Back":
        parts.append({"caption": "Back", "chapters": []})
    api = [
        f"api/{p}"
        for p in PARTS
        if (LIBRARY / f"{p}.py").exists() or [*LIBRARY.glob(f"{p}/[!_]*.py")]
    ]
    parts[-1]["chapters"] += files(["bibliography"] + api)
    return {"format": "jb-book", "root": str(Path(front).with_suffix("")), "parts": parts}


if __name__ == "__main__":
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    head = "# written by nbs/_ext/toc.py from _quarto.yml: add a chapter there\n"
    (NBS / "_toc.yml").write_text(
        head + yaml.safe_dump(toc(book), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    solutions.write()
