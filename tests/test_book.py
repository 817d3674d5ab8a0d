"""The book builds from the stored outputs without a warning, says nothing in the authors' dialect, and needs no network."""

import importlib
import inspect
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from helpers import BOOK, CHAPTERS, LIBRARY, MODULES, NBS, ROOT, name
from pybtex.database import parse_file

sys.path.insert(0, str(NBS / "_ext"))
from reader import code, directives, markdown  # noqa: E402


@pytest.mark.xdist_group("book")
def test_the_book_builds_without_a_warning(build):
    if build[1]:
        pytest.fail(build[1], pytrace=False)


class Page(HTMLParser):
    "The text of a page's article outside code, its links, and what the browser fetches to show it."

    def __init__(self, path):
        super().__init__()
        self.text, self.links, self.fetched, self.ids, self.code, self.article = (
            "",
            [],
            [],
            set(),
            0,
            0,
        )
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if attrs.get("src"):
            self.fetched.append(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "preload", "modulepreload", "icon"):
            self.fetched.append(attrs["href"])
        self.code += tag in ("code", "pre", "script", "style")
        self.article += tag == "article"

    def handle_endtag(self, tag):
        self.code -= tag in ("code", "pre", "script", "style")
        self.article -= tag == "article"

    def handle_data(self, data):
        if self.article and not self.code:
            self.text += data


@pytest.fixture(scope="module")
def pages(site):
    return {
        p.relative_to(site).as_posix(): Page(p)
        for p in site.rglob("*.html")
        if "_static" not in p.parts
    }


@pytest.mark.xdist_group("book")
def test_every_page_of_the_table_of_contents_is_there(site, pages):
    toc = yaml.safe_load((NBS / "_toc.yml").read_text(encoding="utf-8"))
    for f in [toc["root"]] + [c["file"] for p in toc["parts"] for c in p["chapters"]]:
        assert f"{f}.html" in pages


@pytest.mark.xdist_group("book")
def test_nothing_of_the_dialect_is_left(pages):
    left = re.compile(
        r"#\||\{#|(?<![\w/])@(eq|fig|sec|tbl)-|\[-?@\w|\{(eq|cite|ref|numref)\}|\$\$|^:::", re.M
    )
    for page, p in pages.items():
        found = left.search(p.text)
        assert not found, f"{page}: …{p.text[max(0, found.start() - 80) : found.end() + 80]}…"


@pytest.mark.xdist_group("book")
def test_code_cells_show_no_directives(site, pages):
    for page in pages:
        text = re.sub(r"<[^>]+>", "", (site / page).read_text(encoding="utf-8"))
        assert not re.search(r"^#\|", text, re.M), page


@pytest.mark.xdist_group("book")
def test_pages_show_without_a_network(site, pages):
    for page, p in pages.items():
        outside = [u for u in p.fetched if urlsplit(u).netloc]
        assert not outside, f"{page} fetches {outside}"
    for css in site.rglob("*.css"):
        assert not re.search(
            r"(@import|url\()\s*[\"']?(https?:)?//",
            css.read_text(encoding="utf-8", errors="replace"),
        ), css.name


@pytest.mark.xdist_group("book")
def test_maths_are_drawn_by_the_mathjax_we_ship(site, pages):
    assert (site / "_static/mathjax/tex-svg.js").stat().st_size > 1_000_000
    for page, p in pages.items():
        has_maths = re.search(r'class="(?:[^"]* )?math ', (site / page).read_text(encoding="utf-8"))
        scripts = [u for u in p.fetched if "mathjax" in u.lower()]
        assert len(scripts) == bool(has_maths) and all(
            "_static/mathjax/tex-svg.js" in u for u in scripts
        ), f"{page}: {scripts}"


@pytest.mark.xdist_group("book")
def test_links_inside_the_book_lead_somewhere(site, pages):
    for page, p in pages.items():
        for url in {*p.links, *p.fetched}:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            assert ((site / page).parent / unquote(parts.path)).exists(), f"{page} links to {url}"


@pytest.mark.xdist_group("book")
def test_a_chapter_opens_on_colab_and_can_be_downloaded(site, pages):
    for chapter in CHAPTERS:
        page = pages[chapter.relative_to(NBS).with_suffix(".html").as_posix()]
        assert (
            f"https://colab.research.google.com/github/jet-anomaly/jet_anomaly/blob/main/{name(chapter)}"
            in page.links
        )
        assert (site / "_sources" / chapter.relative_to(NBS)).read_bytes() == chapter.read_bytes()


@pytest.mark.xdist_group("book")
def test_what_a_module_exports_is_described(pages):
    missing = []
    for module in MODULES:
        page = pages[f"api/{module.relative_to(LIBRARY).with_suffix('').parts[0]}.html"]
        exported = importlib.import_module(".".join(module.relative_to(ROOT).with_suffix("").parts))
        things = (
            (public, getattr(exported, public)) for public in getattr(exported, "__all__", [])
        )
        named = [
            f"{exported.__name__}.{public}"
            for public, thing in things
            if inspect.isfunction(thing)
            or (inspect.isclass(thing) and thing.__module__ == exported.__name__)
        ]
        missing += [n for n in named if n not in page.ids]
    assert not missing, f"without a docstring, so not in the API pages: {missing}"


ORDER = [c for part in BOOK["chapters"][1:] for c in part["chapters"]]
RELATIVE = re.compile(
    r"\b(next|previous|following|last|earlier|later|first|second) (chapters?|page|part)\b(?! of)|\bchapters? (before|after|above|below|\d+)\b",
    re.I,
)


def test_the_first_detector_comes_early():
    "The title page is the cover; a reader meets the contract of a detector within ten chapters."
    assert "detect/detector.ipynb" in ORDER[:10]


def test_who_wins_closes_the_studies():
    studies = next(p["chapters"] for p in BOOK["chapters"][1:] if "Studies" in p["part"])
    assert studies[-1] == "studies/who_wins.ipynb"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_a_chapter_is_named_and_not_counted(chapter):
    "The order of reading may change: a chapter is referred to by a link with its title."
    for cell in nbformat.read(chapter, as_version=4).cells:
        if cell.cell_type == "markdown":
            found = RELATIVE.search(cell.source)
            assert not found, (
                f"{name(chapter)}, cell {cell.id}: “{found[0]}” depends on the order of chapters; link to the chapter by its title"
            )


def test_citations_have_entries():
    bibliography = parse_file(NBS / "references.bib").entries
    papers = [e.fields["eprint"] for e in bibliography.values() if "eprint" in e.fields]
    assert len(papers) == len(set(papers)), (
        f"twice in references.bib: { ({p for p in papers if papers.count(p) > 1}) }"
    )
    for chapter in CHAPTERS:
        text = "\n".join(
            c.source
            for c in nbformat.read(chapter, as_version=4).cells
            if c.cell_type == "markdown"
        )
        cited = {
            k
            for group in re.findall(r"\[(-?@(?!eq-|fig-|sec-)[^\]]+)\]", text)
            for k in re.findall(r"@([\w:-]*\w)", group)
        }
        assert cited <= set(bibliography), (
            f"{name(chapter)} cites {cited - set(bibliography)}, not in references.bib"
        )


@pytest.mark.parametrize(
    "quarto, myst",
    [
        ("see @eq-mass and @fig-a-b.", "see {eq}`eq-mass` and {numref}`fig-a-b`."),
        ("[@vae; @betavae] and [@vae, eq. 5]", "{cite}`vae,betavae` and ({cite}`vae`, eq. 5)"),
        ("$$ a = b $$ {#eq-ab}", "$$\na = b\n$$ (eq-ab)"),
        (
            "$$\na\n$$ {#eq-a}\ntext $$c$$ and $$\nb\n$$ {#eq-b}",
            "$$\na\n$$ (eq-a)\n\n\ntext $$c$$ and \n\n$$\nb\n$$ (eq-b)",
        ),
        ("## The `x` file {#sec-x}\nas in @sec-x", "(sec-x)=\n## The `x` file\nas in {ref}`sec-x`"),
        (
            "`@eq-mass` and ``[@vae]`` stay\n\n```\n$$ a $$ {#eq-a}\n```",
            "`@eq-mass` and ``[@vae]`` stay\n\n```\n$$ a $$ {#eq-a}\n```",
        ),
        ("someone@eq-mail.org, `@patch`", "someone@eq-mail.org, `@patch`"),
        ("::: {.callout-note}\nhello\n:::", ":::{note}\nhello\n:::"),
    ],
)
def test_the_reader_translates(quarto, myst):
    assert markdown(quarto).strip() == myst


@pytest.mark.parametrize(
    "source, tags",
    [
        ("#| export\nx = 1", ["export"]),
        ("#| hide\n#| eval: false\n!pip", ["remove-cell", "skip-execution"]),
        ("#| default_exp a.b", ["remove-cell"]),
        ("#| code-fold: true\nx", ["hide-input"]),
        ("#| echo: false\nx", ["remove-input"]),
        ("x = '#| hide'", []),
        ("#|export\nx", ["export"]),
    ],
)
def test_directives_become_tags(source, tags):
    cell = nbformat.v4.new_code_cell(source)
    code(cell)
    assert cell.metadata.tags == tags and not cell.source.startswith("#|")


def test_a_caption_makes_a_figure():
    cell = nbformat.v4.new_code_cell(
        '#| label: fig-jets\n#| fig-cap: "Three jets: see @eq-a [@vae]."\n#| fig-alt: dots\nplt.plot()'
    )
    code(cell)
    assert cell.metadata.mystnb == {
        "figure": {"caption": "Three jets: see {eq}`eq-a` {cite}`vae`.", "name": "fig-jets"},
        "image": {"alt": "dots"},
    }
    assert directives("#| label: a\nx\n")[1] == cell.source.replace("plt.plot()", "x")
