"""Notebooks, modules, README and tables of contents say the same: making them again changes nothing."""

import re

import pytest
import yaml
from helpers import BOOK, CHAPTERS, MODULES, NBS, ROOT, copy, name, python, run


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy(tmp_path_factory.mktemp("checkout"))


def changes(checkout):
    "What differs from the commit; undone, so that the next test starts afresh."
    changed = run("git", "status", "--porcelain", cwd=checkout)
    run("git", "reset", "-q", "--hard", cwd=checkout)
    run("git", "clean", "-fdq", cwd=checkout)
    return changed


@pytest.mark.xdist_group("sync")
def test_modules_are_what_the_chapters_export(checkout):
    for module in MODULES:
        (checkout / name(module)).unlink()  # a module without a chapter would stay
    python(
        "-c",
        "from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()",
        cwd=checkout,
    )
    assert not changes(checkout), "Run nbdev_export; a module marked D has no chapter."


@pytest.mark.xdist_group("sync")
def test_notebooks_are_clean(checkout):
    python("-c", "from nbdev.clean import nbdev_clean; nbdev_clean()", cwd=checkout)
    assert not changes(checkout), "Run nbdev_clean."


@pytest.mark.xdist_group("sync")
def test_readme_is_the_title_page(checkout):
    python("nbs/_ext/readme.py", cwd=checkout)
    assert not changes(checkout), "Run python nbs/_ext/readme.py."


@pytest.mark.xdist_group("sync")
def test_table_of_contents_is_generated(checkout):
    python("nbs/_ext/toc.py", cwd=checkout)
    assert not changes(checkout), "Run python nbs/_ext/toc.py."


def quarto():
    "(part, chapter) in the order of _quarto.yml."
    for c in BOOK["chapters"]:
        yield from (
            [(c["part"], chapter) for chapter in c["chapters"]]
            if isinstance(c, dict)
            else [(None, c)]
        )


def test_both_tables_of_contents_hold_the_same_chapters():
    toc = yaml.safe_load((NBS / "_toc.yml").read_text(encoding="utf-8"))
    pages = [(None, toc["root"])] + [
        (p["caption"], c["file"]) for p in toc["parts"] for c in p["chapters"]
    ]
    chapters = [(p, f"{f}.ipynb") for p, f in pages if (NBS / f"{f}.ipynb").exists()]
    assert chapters == list(quarto())


def test_every_chapter_is_in_the_book():
    assert sorted(NBS / c for _, c in quarto()) == CHAPTERS


def test_readme_holds_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for title in ("Run it", "Test it"):
        section = re.search(rf"^## {title}\n(.*?)(?=^## )", readme, re.M | re.S)[1]
        blocks = re.findall(r"^```bash\n(.*?)\n```$", section, re.M | re.S)
        assert len(blocks) == 1 and "\n" not in blocks[0], (
            f"{title}: one block of one line, not {blocks}"
        )


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(
        r"\]\(([^)#]+)\)|(?:src|href)=\"([^\"#]+)\"",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    ):
        target = "".join(link)
        assert target.startswith("https://") or (ROOT / target).exists(), (
            f"README.md links to {target}"
        )
