"""The built book in a browser: no errors in the console, nothing from other hosts, readable on a phone, found by search."""

import functools
import http.server
import os
import shutil
import threading

import pytest

BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"
PAGES = (
    "index tour start/tag start/notation jet/kinematics data/response detect/detector detect/vae evaluate/metrics "
    "studies/who_wins data/sample api/detect bibliography"
).split()
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    found = os.environ.get("JET_ANOMALY_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if not found:
        pytest.skip(
            "no Chromium on this machine: apt-get install chromium, or JET_ANOMALY_BROWSER=PATH"
        )
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def host(site):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=site)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def page(browser, host):
    "Opens pages of the book; `errors` and `foreign` hold what the browser complained about and asked other hosts for."
    tab = browser.new_page(viewport=DESKTOP)
    tab.errors, tab.foreign = [], []
    tab.on("console", lambda m: m.type == "error" and tab.errors.append(m.text))
    tab.on("pageerror", lambda e: tab.errors.append(str(e)))
    tab.on(
        "request", lambda r: r.url.startswith((host, "data:", "blob:")) or tab.foreign.append(r.url)
    )

    def go(name, viewport=DESKTOP):
        tab.set_viewport_size(viewport)
        tab.goto(f"{host}/{name}.html", wait_until="load")
        return tab

    yield go
    tab.close()


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_complaint(page, name):
    tab = page(name)
    assert not tab.errors and not tab.foreign, f"{name}: {tab.errors} {tab.foreign}"


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_one_way(page, name):
    tab = page(name, PHONE)
    wide = tab.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 1, f"{name} is {wide} pixels wider than the phone"


@pytest.mark.xdist_group("book")
def test_a_row_of_panels_is_large_enough_on_a_phone_and_scrolls_in_its_box(page):
    box = "figure:has(img.panels)"
    tab = page("tour", PHONE)
    assert tab.locator(f"{box} img").first.bounding_box()["width"] > 600
    inside = f"(b => [b.scrollWidth, b.clientWidth])(document.querySelector('{box}'))"
    wide, seen = tab.evaluate(inside)
    assert wide > 600 and seen < PHONE["width"]


@pytest.mark.xdist_group("book")
def test_maths_are_drawn(page):
    tab = page("start/notation")
    tab.wait_for_selector("mjx-container svg", timeout=20_000)
    assert "$" not in tab.inner_text("article table >> nth=0")


@pytest.mark.xdist_group("book")
def test_tables_that_code_displays_are_tables(page):
    tab = page("data/read")
    assert tab.locator("div.cell_output table").count() > 0
    assert not [t for t in tab.locator("div.cell_output").all_inner_texts() if "|---" in t]


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("name", PAGES)
def test_figures_say_what_is_seen(page, name):
    missing = page(name).evaluate(
        "[...document.querySelectorAll('article figure img')].filter(i => !i.alt || /\\.(png|svg)$/.test(i.alt)).map(i => i.src)"
    )
    assert not missing, f"{name}: captioned figures without alt text: {missing}"


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("words, chapter", [("DisCo", "detect/disco"), ("bump hunt", "search/")])
def test_search_finds(page, host, words, chapter):
    tab = page("search")
    tab.goto(f"{host}/search.html?q={words.replace(' ', '+')}")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    found = tab.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    assert any(chapter in f for f in found), found


@pytest.mark.xdist_group("book")
def test_contents_stand_in_order(page):
    parts = page("index").locator("nav.bd-links p.caption").all_inner_texts()
    assert [p.split(".")[0] for p in parts[:7]] == ["Start", "I", "II", "III", "IV", "V", "VI"], (
        parts
    )


@pytest.mark.xdist_group("book")
def test_the_keyboard_reaches_the_content(page):
    tab = page("tour")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent").strip().startswith("Skip")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main-content")


@pytest.mark.xdist_group("book")
def test_a_dark_page_is_dark(page):
    tab = page("tour")
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    ink = "getComputedStyle(document.querySelector('article p')).color.match(/\\d+/g).slice(0, 3).map(Number)"
    paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert min(tab.evaluate(ink)) > 150 and max(tab.evaluate(paper)) < 80
