"""Sphinx extension: API pages from the library itself, with parameter comments as the description of parameters."""

import html
import importlib
import inspect
import pkgutil
import re
from functools import cache

from fastcore.docments import docments
from sphinx import addnodes

STARS = {inspect.Parameter.VAR_POSITIONAL: r"\*", inspect.Parameter.VAR_KEYWORD: r"\*\*"}


def modules(part):
    "The modules of a part in the order of their chapters."
    package = importlib.import_module(f"jet_anomaly.{part}")
    if not hasattr(package, "__path__"):
        return [(package, chapter(package))]
    found = [
        importlib.import_module(f"{package.__name__}.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    ]
    return sorted(((m, chapter(m)) for m in found), key=lambda mc: mc[1])


def chapter(module):
    "The notebook a module is exported from, relative to nbs/."
    return re.search(r"File to edit: .*?nbs/(\S+\.ipynb)", inspect.getsource(module))[1]


def write(app, docname, source):
    "Below the title of api/PART.md come the modules of that part."
    if not docname.startswith("api/"):
        return
    for module, notebook in modules(docname.split("/")[1]):
        title = module.__name__.split(".")[-1]
        source[0] += (
            f"\n## {title}\n\nChapter: [](../{notebook})\n\n```{{eval-rst}}\n.. automodule:: {module.__name__}\n   :members:\n```\n"
        )


def rst(text):
    "Our docstrings and comments are Markdown: code and maths survive, marks that mean something else to Sphinx do not."

    def span(m):
        if m["code"]:
            return f"``{m['code']}``"
        if m["math"]:
            return f":math:`{m['math']}`"
        return "\\" + m[0]

    return re.sub(
        r"`+(?P<code>[^`]+)`+|\$(?P<math>[^$\s](?:[^$]*[^$\s])?)\$|[*|\\]|(?<=\w)_(?!\w)",
        span,
        text,
    )


def describe(app, what, name, obj, options, lines):
    "Docstring and parameter comments as Parameters and Returns."
    lines[:] = [rst(line) for line in lines]
    if what not in ("function", "method", "class"):
        return
    try:
        found = docments(obj, full=True, args_kwargs=True)
    except (TypeError, ValueError, OSError):
        return  # no source to read comments from
    described = {k: v for k, v in found.items() if v.get("docment")}
    if described:
        lines.append("")
    for k, v in described.items():
        field = "returns" if k == "return" else "param " + STARS.get(v.kind, "") + k
        lines.append(f":{field}: " + rst(" ".join(v.docment.split())))


def elsewhere(app, what, name, obj, skip, options):
    "A class that a module only uses is described where it is defined."
    module = app.env.temp_data.get("autodoc:module")
    return True if inspect.isclass(obj) and module and obj.__module__ != module else skip


def scripts(app, config):
    "Jupyter Book puts every script under _static on every page; MathJax is only for pages with equations."
    config.html_js_files = [f for f in config.html_js_files if "mathjax" not in str(f)]


def without_thebe(app, pagename, templatename, context, doctree):
    "The theme declares Thebe, which runs cells over a network, twice on every page: an error in the console. We use Colab."
    context["script_files"] = [
        f
        for f in context.get("script_files", [])
        if "thebe" not in f"{f} {getattr(f, 'attributes', {})}".lower()
    ]
    context["css_files"] = [f for f in context.get("css_files", []) if "thebe" not in str(f)]


@cache
def title(builder, docname):
    return builder.render_partial(builder.env.titles[docname])["title"]


def sidebar(app, pagename, templatename, context, doctree):
    "The chapters, part by part. Sphinx copies all sections of all chapters for every page, to leave them out again."

    def toctree(**options):
        lines = []
        for part in app.env.master_doctree.findall(addnodes.toctree):
            caption, chapters = html.escape(part["caption"]), [name for _, name in part["entries"]]
            lines.append(
                f'<p aria-level="2" class="caption" role="heading"><span class="caption-text">{caption}</span></p>'
            )
            lines.append('<ul class="current">' if pagename in chapters else "<ul>")
            for name in chapters:
                if name == pagename:
                    entry, link, to = "toctree-l1 current", "current reference internal", "#"
                else:
                    entry, link = "toctree-l1", "reference internal"
                    to = app.builder.get_relative_uri(pagename, name)
                text = title(app.builder, name)
                lines.append(f'<li class="{entry}"><a class="{link}" href="{to}">{text}</a></li>')
            lines.append("</ul>")
        return "\n".join(lines) + "\n"

    context["toctree"] = toctree


def setup(app):
    app.connect("html-page-context", sidebar, priority=400)  # before the theme calls it
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("config-inited", scripts)
    app.connect("source-read", write)
    app.connect("autodoc-skip-member", elsewhere)
    app.connect("autodoc-process-docstring", describe)
    return {"parallel_read_safe": True}
