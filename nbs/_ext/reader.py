"""Reads a chapter for Jupyter Book: the dialect of Quarto and nbdev becomes that of MyST, in memory."""

import base64
import re
import struct
import textwrap

import nbformat
from figures import palette

HIDDEN = {"hide", "default_exp", "include: false"}
TAGS = {
    "export": "export",
    "exports": "export",
    "exporti": "export",
    "eval: false": "skip-execution",
    "code-fold: true": "hide-input",
    "echo: false": "remove-input",
    "output: false": "remove-output",
}
LONG = 30  # lines: a longer export is folded
PAGE = 94  # characters of output that a page has room for, on a screen of 1280 pixels
BANNER = re.compile(r"#-{40,}\n#\s+FastJet release(?:.|\n)*?#-{40,}\n")
CODE = re.compile(r"(^(`{3,}|~{3,}).*?^\2|(`+)(?!`).*?(?<!`)\3(?!`))", re.M | re.S)
MARKDOWN = [
    (
        r"(?s:\$\$(.+?)\$\$)(?:[ \t]*\{#(eq-[\w-]+)\})?",
        lambda m: f"\n\n$$\n{m[1].strip()}\n$$ ({m[2]})\n\n" if m[2] else m[0],
    ),
    (r"^(#+[^\n]*?)[ \t]*\{#(sec-[\w-]+)\}[ \t]*$", r"(\2)=\n\1"),
    (r"^:::[ \t]*\{\.callout-(\w+)[^}]*\}", r":::{\1}"),
    (
        r"\[-?@((?!eq-|fig-|sec-|tbl-)[\w:-]+(?:;[ \t]*@[\w:-]+)*)\]",
        lambda m: "{cite}`" + re.sub(r";\s*@", ",", m[1]) + "`",
    ),
    (r"\[@((?!eq-|fig-|sec-|tbl-)[\w:-]+),[ \t]*([^\]@]+)\]", r"({cite}`\1`, \2)"),
    (r"(?<![\w`./])@(eq-[\w-]*\w)", r"{eq}`\1`"),
    (r"(?<![\w`./])@(fig-[\w-]*\w)", r"{numref}`\1`"),
    (r"(?<![\w`./])@(sec-[\w-]*\w)", r"{ref}`\1`"),
]


def markdown(text):
    "Equations, references and citations of a Markdown text, code left alone."
    parts, last = [], 0
    for code in CODE.finditer(text):
        parts += [text[last : code.start()], code[0]]
        last = code.end()
    parts.append(text[last:])
    # code is set aside under marks no chapter holds, so that a label may stand beside it in one equation or heading
    joined = "".join(p if i % 2 == 0 else f"\0{i}\0" for i, p in enumerate(parts))
    for pattern, new in MARKDOWN:
        joined = re.sub(pattern, new, joined, flags=re.M)
    return re.sub("\0(\\d+)\0", lambda m: parts[int(m[1])], joined)


def plain(text):
    "A caption as plain text, for an alt text."
    text = re.sub(r"\s*\[-?@[^\]]*\]", "", text)
    return re.sub(r"[$`*\\{}]|@(eq|fig|sec)-[\w-]+", "", text).replace("\n", " ").strip()


def directives(source):
    "The `#|` lines of a code cell as name → value, and the code without them."
    lines = source.splitlines()
    found = [line[2:].strip() for line in lines if line.startswith("#|")]
    pairs = (re.match(r"([\w-]+):?\s*(.*)", d).groups() for d in found)
    return {k: v.strip().strip("\"'") for k, v in pairs}, "\n".join(
        line for line in lines if not line.startswith("#|")
    ).strip()


def code(cell):
    "Tags and figure of a code cell from its directives."
    flags, cell.source = directives(cell.source)
    names = {k for k in flags} | {f"{k}: {v.lower()}" for k, v in flags.items()}
    tags = {tag for name, tag in TAGS.items() if name in names}
    if HIDDEN & names:
        tags.add("remove-cell")
    if "export" in tags and len(cell.source.splitlines()) > LONG:
        tags.add("hide-input")
    cell.metadata["tags"] = sorted(tags)
    mystnb = {}
    if "fig-cap" in flags:
        mystnb["figure"] = {"caption": markdown(flags["fig-cap"])} | (
            {"name": flags["label"]} if "label" in flags else {}
        )
    if alt := flags.get("fig-alt") or flags.get("fig-cap"):
        mystnb["image"] = {"alt": plain(alt)}
    if "code-summary" in flags:
        mystnb["code_prompt_show"] = flags["code-summary"]
    if mystnb:
        cell.metadata["mystnb"] = mystnb


def wrapped(text):
    "Text whose long lines go on below, but for those of tables, which have columns."
    return "\n".join(
        line
        if len(line) <= PAGE or re.search(r"\S {2,}\S", line.strip())
        else textwrap.fill(line, PAGE, subsequent_indent="    ", break_long_words=False)
        for line in text.split("\n")
    )


def outputs(cell, alt):
    "What a cell shows: no banner of FastJet, figures with a text for those who do not see them."
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = wrapped(BANNER.sub("", output.text))
        elif "text/plain" in output.get("data", {}):
            output.data["text/plain"] = wrapped(output.data["text/plain"])
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = palette(output.data["image/png"])
            if alt:
                output.metadata.setdefault("image/png", {})["alt"] = alt
    cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]


def wide(cell):
    "Whether a cell shows a row of panels: a telephone would make them too small to read."
    for output in cell.outputs:
        if png := output.get("data", {}).get("image/png"):
            width, height = struct.unpack(">II", base64.b64decode(png[:64])[16:24])
            if width > max(700, 2 * height):
                return True
    return False


def read(text):
    "A notebook as Jupyter Book understands it."
    nb = nbformat.reads(text, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = markdown(cell.source)
        if cell.cell_type == "code":
            code(cell)
            if wide(cell):
                cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["classes"] = "panels"
            outputs(cell, cell.metadata.get("mystnb", {}).get("image", {}).get("alt"))
    return nb
