"""Numbers in the prose that no cell of the same chapter shows or computes:  python tests/long/claims.py [chapters]

A decimal number or a percentage in a text or in the description of a figure is looked for, rounded as it is written,
among the outputs and the code of its chapter. What is left is quoted from elsewhere, or worth a look.
"""

import bisect
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(?<![\w.\-{])(\d*\.\d+)(?!\.?\d)|(?<![\w.])(\d+(?:\.\d+)?) ?\\?%")
ANY = re.compile(r"(?<![\w.])\d*\.?\d+(?:e-?\d+)?")
NOT_PROSE = re.compile(
    r"```.*?```|\$\$.*?\$\$|`[^`]*`|\]\([^)]*\)|\b\d{4}\.\d{4,5}\b", re.S
)  # the last: arXiv


def seen(cells):
    "The numbers of all outputs and of all code, sorted."
    text = []
    for cell in cells:
        if cell["cell_type"] == "code":
            text.append("".join(cell["source"]).replace("_", ""))
            for output in cell["outputs"]:
                data = output.get("data", {})
                text += ["".join(output.get("text", ""))]
                text += ["".join(data.get(k, "")) for k in data if k.startswith("text/")]
    return sorted({float(x) for x in ANY.findall("\n".join(text))})


def has(numbers, value, tolerance):
    i = bisect.bisect_left(numbers, value - tolerance)
    return i < len(numbers) and numbers[i] <= value + tolerance


def claims(cells):
    "(cell, sentence, number as written, whether the chapter shows it)."
    numbers = seen(cells)
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            texts = [source]
        else:
            texts = re.findall(r'#\| fig-alt: "(.*)"', source)
        for sentence in (
            s
            for t in texts
            for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z$*\[])|\n", NOT_PROSE.sub("", t))
        ):
            for found in NUMBER.finditer(sentence):
                written = found[1] or found[2]
                value = float(written)
                half = 0.5001 * 10.0 ** -len(written.partition(".")[2])
                share = value / 100 if found[2] else value * 100
                known = has(numbers, value, half) or has(
                    numbers, share, half * share / value if value else half
                )
                yield cell["id"], sentence.strip(), found[0], known


if __name__ == "__main__":
    chapters = [Path(a) for a in sys.argv[1:]] or sorted((ROOT / "nbs").rglob("*.ipynb"))
    chapters = [c for c in chapters if c.stem != "solutions"]  # its text is that of the chapters
    total = left = 0
    for chapter in chapters:
        for cell, sentence, number, known in claims(json.loads(chapter.read_text())["cells"]):
            total, left = total + 1, left + (not known)
            if not known:
                print(f"{chapter.stem} {cell}: {number} | {sentence[:160]}")
    print(f"{total} numbers, {left} not shown by their chapters")
