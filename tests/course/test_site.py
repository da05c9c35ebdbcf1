"""A reader's walk through the built book, in headless Chromium."""

import functools
import html.parser
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from docutils.nodes import make_id
from jupyter_cache import get_cache

from symcourse.page.flipbook import MAX_FRAMES
from tests.course import test_reading as reading
from tests.debian import program
from tests.small_book import keep_stored_executions
from tools import build, derive, evidence, notebooks, scoreboard, sources

HTML = build.ROOT / "_build" / "html"
LESSON = "book/02-symmetric-posteriors.html"
CHAPTER = "book/03-symmetrized-posteriors.html"
WIDGET = "application/vnd.jupyter.widget-view+json"
MAX_PAGE = 1_500_000  # bytes of one page with its frames
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def site():
    """Build the book if it is not up to date, and return its folder."""
    # Only in a fresh clone: elsewhere a stored output could be older than symlib. The chapters are
    # executed, since stored ones lack the frames of flipbooks, and
    # test_chapters_print_what_their_notebooks_store compares them.
    if os.environ.get("CI"):
        keep_stored_executions(build.ROOT, filter(notebooks.is_exercise, notebooks.sources()))
    # As a reader would, in a process of its own: it leaves an event loop to the collector.
    subprocess.run([sys.executable, "-m", "tools.build"], cwd=build.ROOT, check=True)
    return HTML


def texts(cell):
    """Return what a code cell shows, but for pictures and HTML, which also differ by platform."""
    shown = [("stream", o.text) for o in cell.outputs if o.output_type == "stream"]
    data = [o.data for o in cell.outputs if "data" in o]
    return shown + [
        (kind, content)
        for bundle in data
        for kind, content in sorted(bundle.items())
        if kind.partition("/")[0] != "image" and kind not in ("text/html", WIDGET)
    ]


def differing_cells(stored, executed):
    """Return (source, stored texts, executed texts) of each code cell that shows another text."""
    pairs = zip(stored.cells, executed.cells, strict=True)
    # What a live cell shows is stored nowhere: it needs a kernel.
    cells = [
        (old, new)
        for old, new in pairs
        if old.cell_type == "code" and "live" not in old.metadata.get("tags", [])
    ]
    return [(o.source, texts(o), texts(n)) for o, n in cells if texts(o) != texts(n)]


def chapters():
    """Return the sources of the chapters, for which the build is the one execution."""
    return [source for source in notebooks.sources() if source.parent.name != "exercises"]


@pytest.mark.parametrize("source", chapters(), ids=lambda source: source.stem)
def test_chapters_print_what_their_notebooks_store(site, source):
    converted = notebooks.convert(source)
    (executed,) = notebooks.execute({"chapter": converted}).values()  # as the build kept it
    stored = notebooks.convert(source)
    path = notebooks.notebook_path(source)
    notebooks.take_outputs(stored, nbformat.read(path, as_version=4))
    assert differing_cells(stored, executed) == []
    # A false stored output is noticed in every cell, whatever shows it.
    for kind in ("stream", "text/plain", "application/papermill.record/text/plain"):
        false = nbformat.from_dict(stored)
        falsified = [cell.source for cell in false.cells if falsify(cell, kind)]
        assert [source for source, _, _ in differing_cells(false, executed)] == falsified
        assert len(falsified) >= (kind != "stream")


def falsify(cell, kind):
    """Change the first digit that a cell shows in a kind of output; say whether it has one."""
    for output in cell.get("outputs", []):
        where, name = (output, "text") if kind == "stream" else (output.get("data", {}), kind)
        text = where.get(name, "")
        if re.search(r"\d", text):
            where[name] = re.sub(r"\d", lambda digit: str(9 - int(digit[0])), text, count=1)
            return True
    return False


@pytest.fixture(scope="module")
def address(site):
    """Serve the built book on this machine and return its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Return a headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = program("chromium", "chromium", "google-chrome")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def looks():
    """Return the looks of text, in light and dark, that a visit has found readable."""
    return []


def new_tab(browser, width=1280, **options):
    """Return a fresh tab with a profile of its own."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, **options).new_page()
    # On a busy machine a long page takes a while to set its formulas; no test measures time.
    tab.set_default_timeout(120_000)
    return tab


def show(tab, url):
    """Open a page and wait until its formulas are set."""
    tab.goto(url)
    tab.evaluate("window.MathJax?.startup?.promise?.then(() => true)")


@pytest.fixture
def page(browser, address):
    """Return a fresh tab, which at the end has asked nobody but the site, and thrown nothing."""
    tab = new_tab(browser)
    strangers, errors = [], []
    own = (address, "data:", "blob:", HTML.as_uri())
    tab.on("request", lambda r: None if r.url.startswith(own) else strangers.append(r.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    tab.context.close()
    assert strangers == []
    assert errors == []


def rendered(site):
    """Return the pages, without the templates that the theme leaves among its files."""
    return [p for p in site.rglob("*.html") if "_static" not in p.parts]


def pages():
    """Return the addresses of all pages, as the table of contents gives them."""
    import yaml

    toc = yaml.safe_load((build.ROOT / "_toc.yml").read_text("utf-8"))
    found = [toc["root"]]

    def walk(entries):
        for entry in entries:
            found.append(entry["file"])
            walk(entry.get("sections", []))

    for part in toc["parts"]:
        walk(part["chapters"])
    return [f"{name}.html" for name in found]


def test_a_reader_walks_from_home_to_chapter_three(page, address):
    page.goto(address)
    page.wait_for_url("**/book/welcome.html")
    page.get_by_role("link", name=re.compile(r"Mix the copies")).first.click()
    page.wait_for_url(f"**/{CHAPTER}")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-merror").count() == 0
    rendered = page.locator("mjx-container").first.bounding_box()
    assert rendered["width"] > 5 and rendered["height"] > 5
    assert "\\(" not in page.locator("article").inner_text()


def test_a_flipbook_is_moved_by_keyboard(page, address):
    page.goto(address + CHAPTER)
    book = page.locator("figure.flipbook").first
    picture = book.locator("img:not([hidden])")
    slider = book.locator("input[type=range]").first
    before, words = picture.screenshot(), picture.get_attribute("alt")
    assert len(words.split()) >= 5
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert picture.count() == 1
    assert picture.get_attribute("alt") != words
    assert picture.screenshot() != before
    assert slider.get_attribute("aria-valuetext") == book.locator("output").first.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert picture.get_attribute("alt") == words
    assert picture.screenshot() == before


def test_flipbooks_work_from_a_folder_and_print_a_still(page, site):
    page.goto((site / CHAPTER).as_uri())
    book = page.locator("figure.flipbook").first
    page.emulate_media(media="print")
    assert book.locator("img:visible").count() == 1
    assert not book.locator("input").first.is_visible()
    page.emulate_media(media="screen")
    picture = book.locator("img:visible")
    words = picture.get_attribute("alt")
    book.locator("input").first.press("ArrowRight")
    assert picture.count() == 1 and picture.get_attribute("alt") != words


def test_without_scripts_the_frame_it_opens_on_stays(browser, address):
    tab = new_tab(browser, java_script_enabled=False)
    tab.goto(address + CHAPTER)
    book = tab.locator("figure.flipbook").first
    assert book.locator("img:visible").count() == 1
    assert book.locator("img:visible").get_attribute("alt").startswith("r = 1.50")
    assert not book.locator("input").first.is_visible()
    tab.context.close()


def test_rendering_executes_nothing_again(site):
    records = get_cache(build.ROOT / "_build" / ".jupyter_cache").list_cache_records()
    pages = {notebooks.page_name(source) for source in notebooks.executed_pages()}
    assert {str(Path(r.uri).relative_to(build.ROOT).with_suffix("")) for r in records} == pages
    # Jupyter Book notes how long it took where it executes a page itself.
    assert {record.data["execution_seconds"] for record in records} == {0}


def test_a_solution_opens_by_keyboard(page, address):
    page.goto(address + CHAPTER)
    page.locator("article a", has_text=re.compile("exercises", re.I)).last.click()
    page.wait_for_url("**/book/exercises/03-*.html")
    solution = page.locator("details.fold", has_text="Solution").first
    cell = solution.locator("pre").first
    assert not cell.is_visible()
    solution.locator("summary").press("Enter")
    assert cell.is_visible()


def test_search_finds_a_word_of_the_text(page, address):
    page.goto(address + "search.html?q=orbit")
    page.wait_for_selector("#search-results li a")
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("01-model-symmetries" in link for link in links)


# Contrast depends on the text's colour, size and weight, on what it stands on, and, for a link, on
# the text around it. A page has tens of such looks and tens of thousands of elements, each of which
# takes axe a millisecond. So three elements with each look that no page before had are marked:
# three, since axe cannot decide where something lies above one.
MARK_LOOKS = """known => {
  const old = new Set(known), clear = "rgba(0, 0, 0, 0)", count = {};
  const grounds = new Map([[null, ""]]);
  function ground(e) {
    if (!grounds.has(e)) {
      const style = getComputedStyle(e), own = [];
      if (style.backgroundColor != clear) own.push(style.backgroundColor);
      if (style.backgroundImage != "none") own.push(style.backgroundImage);
      if (style.opacity != 1) own.push(style.opacity);
      grounds.set(e, ground(e.parentElement) + own.join());
    }
    return grounds.get(e);
  }
  for (const e of document.querySelectorAll("body, body *")) {
    delete e.dataset.look;
    const text = [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
    if (!text || !e.checkVisibility()) continue;
    const s = getComputedStyle(e), parent = getComputedStyle(e.parentElement);
    const around = e.tagName == "A" ? parent.color + s.textDecoration : "";
    const look = [s.color, s.fontSize, s.fontWeight, s.textShadow, around, ground(e)].join(";");
    if (old.has(look)) continue;
    count[look] = (count[look] ?? 0) + 1;
    if (count[look] <= 3) e.dataset.look = "";
  }
  return Object.keys(count);
}"""
COLOUR_RULES = ["color-contrast", "link-in-text-block"]


def visit(browser, url, known=()):
    """Assert that a page is accessible, with readable colours in light and dark, and fits a phone.

    Returns the looks of its text that are not `known`, in light and dark.
    """
    from axe_playwright_python.sync_playwright import Axe

    def problems(context=None, **options):
        # Describing what is right, too, doubles the time.
        options["resultTypes"] = ["violations"]
        found = Axe().run(tab, context=context, options=options).response["violations"]
        return [
            (v["id"], [n["html"][:200] for n in v["nodes"][:3]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]

    # Loading a page and setting its formulas takes a while: one visit is for all.
    tab = new_tab(browser, color_scheme="light")
    show(tab, url)
    assert tab.locator("html").get_attribute("data-theme") == "light"
    tab.evaluate("document.querySelectorAll('article details').forEach(d => { d.open = true })")
    found, looks = problems(rules={rule: {"enabled": False} for rule in COLOUR_RULES}), []
    for theme in ("light", "dark"):
        # As the button for it does. Nothing changes but colours.
        tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        tab.wait_for_timeout(700)  # opened cells and colours fade in
        new = tab.evaluate(MARK_LOOKS, [*known, *looks])
        if new:
            found += problems({"include": [["[data-look]"]]}, runOnly=COLOUR_RULES)
        looks += new
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_timeout(200)
    width = tab.evaluate("document.documentElement.scrollWidth")
    tab.context.close()
    assert found == []
    assert width <= 391, f"{url} is {width} pixels wide on a screen of 390"
    return looks


# The other half stands in test_site_rest, so that two workers share the visits.
@pytest.mark.parametrize("name", pages()[: len(pages()) // 2])
def test_pages_are_accessible_in_light_and_dark_and_fit_a_phone(browser, address, looks, name):
    looks += visit(browser, address + name, looks)


def test_a_look_is_visited_once(browser, address):
    looks = visit(browser, address + pages()[0])
    assert len(looks) > 10
    assert visit(browser, address + pages()[0], looks) == []


@pytest.mark.parametrize(
    ("style", "found"),
    [
        ("p { color: #bbb }", "color-contrast"),
        ("[data-theme=dark] body { background: #444 }", "color-contrast"),
        ("p:last-child { color: #bbb }", "color-contrast"),
        ("div { background: #333 }", "color-contrast"),
        ("div { opacity: 0.3 }", "color-contrast"),
        ("a { color: #333; text-decoration: none }", "link-in-text-block"),
        ("p { width: 600px }", "pixels wide"),
    ],
    ids=["light", "dark", "one of many", "ground", "faint", "link", "phone"],
)
def test_a_visit_notices_what_is_wrong(browser, tmp_path, style, found):
    text = '<!doctype html><html lang="en" data-theme="light"><head><title>A page</title>'
    text += f"<style>{style}</style></head><body><main>"
    text += (
        "<p>Some words.</p>" * 20
        + "<div><span>Others.</span></div><p>See <a href='#'>here</a>.</p>"
    )
    text += "<p>The last.</p></main></body></html>"
    path = tmp_path / "page.html"
    path.write_text(text, "utf-8")
    with pytest.raises(AssertionError, match=found):
        visit(browser, path.as_uri())


def test_a_page_takes_the_colours_of_the_system(browser, address):
    for scheme in ("light", "dark"):
        tab = new_tab(browser, color_scheme=scheme)
        show(tab, address + CHAPTER)
        assert tab.locator("html").get_attribute("data-theme") == scheme
        tab.context.close()


class _Page(html.parser.HTMLParser):
    """Collects what a page links to, loads, and can be linked to at."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")} - {None}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag == "link" and attributes.get("rel") in ("canonical", "next", "prev"):
            pass
        elif tag in ("script", "img", "iframe", "link", "source", "video", "audio"):
            self.loads += [attributes[k] for k in ("src", "href") if attributes.get(k)]


def test_no_page_loads_a_stranger_and_no_internal_link_is_broken(site):
    pages = {p: _Page(p.read_text("utf-8")) for p in rendered(site)}
    assert len(pages) > 10
    broken = []
    for path, page in pages.items():
        loads = [x for x in page.loads if not x.startswith("data:")]
        assert not [x for x in loads if urlsplit(x).scheme or x.startswith("//")], path
        for link in page.links + loads:
            parts = urlsplit(link)
            if parts.scheme or link.startswith(("//", "#search")):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                broken.append((path.name, link))
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors:
                    broken.append((path.name, link))
    assert broken == []


def test_the_scoreboard_leads_to_every_name(site):
    links = _Page((site / "book" / "scoreboard.html").read_text("utf-8")).links
    address = derive.repository_url(build.ROOT) + "/blob/main/"
    for row in scoreboard.load():
        wanted = [f"../{row['page']}.html#claim-{name}" for name in row["claims"]]
        wanted += [f"reference.html#{name}" for name in row["functions"]]
        wanted += [address + test.partition("::")[0] for test in row["tests"]]
        wanted += [address + evidence.result_path(name) for name in row["results"]]
        assert set(wanted) <= set(links), row["id"]


def test_the_index_of_the_sources_leads_to_every_name(site):
    links = _Page((site / "book" / "sources.html").read_text("utf-8")).links
    address = derive.repository_url(build.ROOT) + "/blob/main/"
    for entry in (entry for source in sources.load() for entry in source["entries"]):
        chapter = f"../{entry['page']}.html#"
        wanted = [f"{chapter}claim-{name}" for name in entry["claims"]]
        wanted += [f"{chapter}{make_id(entry['section'])}"]
        wanted += [f"reference.html#{name}" for name in entry["functions"]]
        wanted += [f"errors.html#error-{name.lower()}" for name in entry["errors"]]
        wanted += [address + test.partition("::")[0] for test in entry["tests"]]
        wanted += [address + evidence.result_path(name) for name in entry["results"]]
        assert set(wanted) <= set(links), entry["place"]


def test_pages_with_their_frames_stay_small(site):
    sizes = {p.name: p.stat().st_size for p in rendered(site)}
    assert {n: s for n, s in sizes.items() if s >= MAX_PAGE} == {}


def test_a_page_has_at_most_120_frames(site):
    for name in pages():
        frames = (site / name).read_text("utf-8").count('src="data:image/png')
        assert frames <= MAX_FRAMES, f"{name} has {frames} frames"


def test_every_picture_in_a_page_has_words(site):
    for name in pages():
        text = (site / name).read_text("utf-8")
        for image in re.findall(r"<img\b[^>]*>", text):
            if "article" not in image and "logo" not in image:
                alt = re.search(r'alt="([^"]*)"', image)
                assert alt and len(alt[1].split()) >= 3 or "_static/" in image, (name, image[:200])


def test_the_site_does_not_name_the_machine_that_built_it(site):
    names = str(Path(site).parent.parent).encode()
    assert [p for p in site.rglob("*") if p.is_file() and names in p.read_bytes()] == []


def neighbours(site, name):
    """Return where a page's links to the previous and the next page lead."""
    text = (site / f"{name}.html").read_text("utf-8")
    sides = ("left-prev", "right-next")
    found = [re.search(rf'class="{side}"\s+href="([^"]*)"', text) for side in sides]
    return [match and str(Path(name).parent / match[1]) for match in found]


def test_previous_and_next_walk_the_lessons(site):
    lessons = [x.removesuffix(".html") for x in pages() if re.match(r"book/\d\d-", x)]
    assert len(lessons) == 10
    for before, lesson, after in zip(lessons, lessons[1:], lessons[2:], strict=False):
        wanted = [f"{before}.html", f"{after}.html"]
        assert [os.path.normpath(x) for x in neighbours(site, lesson)] == wanted
    for name in (x.removesuffix(".html") for x in pages()):
        if name.startswith(("book/exercises/", "book/paper/")):
            own = f"book/{Path(name).name}.html"
            assert os.path.normpath(neighbours(site, name)[0]) == own


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda s: f"{s.parent.name}/{s.stem}")
def test_a_notebook_says_what_its_page_says(site, source):
    html = (site / f"{notebooks.page_name(source)}.html").read_text("utf-8")
    notebook = nbformat.read(notebooks.notebook_path(source), as_version=4)
    assert reading.strayed(html, notebook) == []
    # A word on one side only is seen.
    notebook.cells[0].source += " indeed"
    assert reading.strayed(html, notebook) == ["+indeed"]


def test_checks_open_by_keyboard_print_closed_and_a_number_leads_to_its_own(page, address):
    page.goto(address + LESSON)
    number = page.locator("a.claimed").first
    name = number.get_attribute("href").removeprefix("#")
    claim = page.locator(f"[id='{name}']")
    fold = page.locator("details.checks", has=claim)
    assert re.fullmatch(r"\d+ checks? passed", fold.locator("summary").inner_text())
    assert not claim.is_visible()
    page.emulate_media(media="print")
    assert fold.locator("summary").is_visible() and not claim.is_visible()
    page.emulate_media(media="screen")
    fold.locator("summary").press("Enter")
    assert claim.is_visible()
    fold.locator("summary").press("Enter")
    assert not claim.is_visible()
    number.click()
    assert claim.is_visible() and fold.locator("pre").first.is_visible()


def test_code_folds_without_a_script(browser, address):
    tab = new_tab(browser, java_script_enabled=False)
    tab.goto(address + LESSON)
    fold = tab.locator("details.code").first
    assert not fold.locator("pre").first.is_visible()
    fold.locator("summary").click()
    assert fold.locator("pre").first.is_visible()
    tab.context.close()


def test_a_flipbook_opens_on_its_frame(page, address):
    page.goto(address + LESSON)
    book = page.locator("figure.flipbook").first
    assert book.locator("output").inner_text() == "1.5"
    assert book.locator("img:not([hidden])").get_attribute("alt").startswith("r = 1.5")
    assert book.locator("figcaption").inner_text().startswith("r = 1.5")


@pytest.fixture
def lab(tmp_path):
    """Start JupyterLab on the committed notebooks, with all cells shown; return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    root = tmp_path / "notebooks"
    shutil.copytree(build.ROOT / "notebooks", root)
    own = {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={root}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        server.wait()


def test_a_notebook_reads_well_in_jupyterlab(lab, browser):
    tab = new_tab(browser)
    for _ in range(60):
        try:
            tab.goto(f"{lab}lab/tree/{Path(LESSON).stem}.ipynb")
            break
        except Exception:  # it needs a while to start
            time.sleep(1)
    tab.wait_for_selector(".jp-RenderedMarkdown h2:has-text('What to remember')")
    tab.wait_for_selector("mjx-container, .MathJax")
    text = "\n".join(tab.locator(".jp-RenderedMarkdown").all_inner_texts())
    assert "Two updates, and the golden ratio" in text
    assert not reading.RAW.search(text)
    # Claims are one closed line, and what the page folds is folded.
    fold = tab.locator(".jp-RenderedHTMLCommon details", has_text="checks passed").first
    assert fold.locator("p.claim").first.is_hidden()
    hidden = tab.locator(".jp-CodeCell .jp-Cell-inputWrapper .jp-Placeholder")
    assert hidden.count() >= 10
    tab.context.close()
