"""The demo as its visitors see it: in a real browser, with real photos."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hub_server import WRITER, HubServer
from PIL import Image

from u2net_hub import SaliencyPipeline, U2Net
from u2net_hub.imaging.transforms import resize

pytest.importorskip("gradio")
pytest.importorskip("playwright", reason="playwright drives the browser; install u2net-hub[test]")

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

if TYPE_CHECKING:
    from conftest import Demo

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    # of httpx, at what huggingface_hub gives it
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

Tiny = Callable[[int], U2Net]
Visit = Callable[..., Page]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CAT, ASTRONAUT, COFFEE = (EXAMPLES / name for name in ("chelsea.jpg", "astronaut.jpg", "coffee.jpg"))
TABS = {
    "Cutout": "cutout-go",
    "Compare": "compare-go",
    "Inside": "inside-go",
    "Batch": "batch-go",
    "Your model": "your-go",
}
# Gradio's own page about the API asks for two parts of Gradio that are switched off here
SWITCHED_OFF = ("/monitoring/summary", "/gradio_api/mcp/schema")

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # no other host is found: a route that refuses them would switch the browser's cache off
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", nowhere])
        yield chromium
        chromium.close()


class Windows:
    """The open windows of the browser, and what went wrong in them or was asked for outside."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address = browser, address
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.kept: dict[tuple[str, ...], Page] = {}
        self.passing: BrowserContext | None = None
        self.failed = 0

    def ask(self, request: Request) -> None:
        if not request.url.startswith((f"{self.address}/", f"blob:{self.address}/", "data:")):
            self.outside.append(request.url)

    def say(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.location["url"].endswith(SWITCHED_OFF):
            self.errors.append(f"{message.text} {message.location}")

    def new_context(self, scheme: str = "light") -> BrowserContext:
        context = self.browser.new_context(color_scheme=scheme)
        context.set_default_timeout(30_000)
        context.on("request", self.ask)
        context.on("console", self.say)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        return context

    def open(self, context: BrowserContext, query: str = "", width: int = 1280) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("websocket", lambda socket: self.outside.append(socket.url))
        page.goto(f"{self.address}/{query}")
        expect(page.locator("#cutout-go")).to_be_visible()
        return page

    def keep(self, key: str, query: str, scheme: str) -> Page:
        page = self.kept.get((key, query, scheme))
        if page is None or page.is_closed():
            page = self.kept[key, query, scheme] = self.open(self.new_context(scheme), query)
        return page

    def pass_through(self, width: int) -> Page:
        """A new page in a context that has the files of the page already."""
        self.passing = self.passing or self.new_context()
        return self.open(self.passing, width=width)

    def close_kept(self) -> None:
        while self.kept:
            self.kept.popitem()[1].context.close()


@pytest.fixture(scope="module")
def windows(browser: Browser, demo: Demo) -> Iterator[Windows]:
    opened = Windows(browser, demo.address)
    yield opened
    opened.close_kept()


@pytest.fixture
def visit(windows: Windows, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens the page in a window; in the end nothing may have gone wrong or outside.

    A page costs two seconds of a core. With `keep`, the window stays open for other tests that ask for the
    same: "looks" is for tests that only look at a page as it comes, "tabs" for those that use a tab alone.
    Without, the page is new and is closed after the test.
    """
    if windows.failed != request.session.testsfailed:  # who knows what a failed test left on a page
        windows.close_kept()
        windows.failed = request.session.testsfailed
    windows.outside.clear()
    windows.errors.clear()
    pages: list[Page] = []

    def opened(query: str = "", *, keep: str = "", scheme: str = "light", width: int = 1280) -> Page:
        if keep:
            return windows.keep(keep, query, scheme)
        pages.append(windows.pass_through(width))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()
    assert windows.outside == []
    assert windows.errors == []


@pytest.fixture
def cat_cut_out(visit: Visit) -> Page:
    """The page on which the photo of the cat has been cut out."""
    page = visit(keep="tabs")
    show(page, "Cutout")
    words = page.locator("#cutout-words")
    if not words.inner_text().strip():
        choose(page, "cutout-photo", CAT)
    expect(words).to_contain_text("Object found")
    return page


@pytest.fixture(scope="module")
def u2netp(remembering: Callable[..., SaliencyPipeline]) -> SaliencyPipeline:
    return remembering("u2netp")


def show(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()
    expect(page.locator(f"#{TABS[tab]}")).to_be_visible()


def choose(page: Page, into: str, *photos: Path) -> None:
    page.locator(f"#{into} input[type=file]").first.set_input_files(photos)


def download(page: Page, button: str) -> tuple[str, bytes]:
    """Name and content of the file behind a button."""
    expect(page.locator(f"#{button}")).to_be_enabled()
    with page.expect_download() as started:
        page.locator(f"#{button}").click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def shown(page: Page, pictures: str) -> list[np.ndarray]:
    """The pictures on the page, as it has them."""
    images = page.locator(pictures)
    return [pixels(page.request.get(image.get_attribute("src") or "").body()) for image in images.all()]


# The tabs


def test_the_cutout_that_is_downloaded_is_the_pipelines(cat_cut_out: Page, u2netp: SaliencyPipeline) -> None:
    page = cat_cut_out
    expect(page.locator("#cutout-words")).to_contain_text(re.compile(r"451 × 300 px.*\d ms on cpu"))
    name, png = download(page, "cutout-download")
    assert name == "chelsea_cutout.png"
    np.testing.assert_array_equal(pixels(png), np.asarray(u2netp(CAT).cutout()))


def test_the_choices_beside_a_photo_reach_its_cutout(visit: Visit, u2netp: SaliencyPipeline) -> None:
    page = visit()
    page.get_by_role("radio", name="blur").check()
    page.get_by_role("checkbox", name="Hard edges").check()
    page.get_by_role("checkbox", name="Crop to the object").check()
    expect(page.get_by_role("slider", name=re.compile("Threshold"))).to_be_visible()
    choose(page, "cutout-photo", COFFEE)
    result = u2netp(COFFEE)
    box = result.bbox(edges="sharp")
    assert box is not None
    expected = result.over("blur", 0.5).crop(box)
    expect(page.locator("#cutout-words")).to_contain_text("Object found")
    np.testing.assert_array_equal(pixels(download(page, "cutout-download")[1]), np.asarray(expected))


def test_before_and_after_lie_over_each_other(cat_cut_out: Page) -> None:
    page = cat_cut_out
    before, after = (page.get_by_role("img", name=name, exact=True) for name in ("Before", "After"))
    expect(after).to_be_visible()
    assert before.bounding_box() == after.bounding_box()
    assert shown(page, '#cutout-preview img[alt="After"]')[0].shape == (300, 451, 4)


def test_compare_shows_what_each_of_two_models_sees(
    visit: Visit, demo: Demo, tiny_source: Path, u2netp: SaliencyPipeline
) -> None:
    page = visit(keep="tabs")
    show(page, "Compare")
    choose(page, "compare-photo", CAT)
    table = page.locator("#compare-table table")
    expect(table).to_contain_text("1,131,181")  # parameters of U²-Net†
    for name in demo.models:
        expect(table.get_by_role("columnheader", name=name)).to_be_visible()
    first, second, apart = (
        shown(page, f"#compare-{which} img")[0] for which in ("first", "second", "difference")
    )
    other = SaliencyPipeline.from_pretrained(str(tiny_source), device="cpu")
    np.testing.assert_array_equal(first, np.asarray(u2netp(CAT).mask(None)))
    np.testing.assert_array_equal(second, np.asarray(other(CAT).mask(None)))
    assert apart.shape == (300, 451, 3)
    assert apart[first == second].max(initial=0) <= 1
    assert apart.max() > 100


def test_inside_shows_seven_maps_that_are_the_networks_and_differ(
    visit: Visit, u2netp: SaliencyPipeline
) -> None:
    page = visit(keep="tabs")
    show(page, "Inside")
    page.get_by_role("radio", name="map alone").check()
    choose(page, "inside-photo", CAT)
    expect(page.locator("#inside-maps .thumbnail-item img")).to_have_count(7)
    maps = shown(page, "#inside-maps .thumbnail-item img")
    result = u2netp(CAT, side_outputs=True)
    assert result.side_outputs is not None
    expected = [*reversed(result.side_outputs), resize(result.probability, result.size)]
    for seen, values in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(seen, np.rint(values * 255))
    for one, other in itertools.combinations(maps, 2):
        assert np.mean(one != other) > 0.1
    captions = page.locator("#inside-maps .caption-label").all_inner_texts()
    assert [caption.strip() for caption in captions][::6] == ["Side 6, coarsest", "Fused"]


def test_batch_zips_what_it_can_and_lists_the_rest(
    visit: Visit, u2netp: SaliencyPipeline, tmp_path: Path
) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    page = visit(keep="tabs")
    show(page, "Batch")
    choose(page, "batch-files", CAT, bad, COFFEE)
    expect(page.locator("#batch-files")).to_contain_text("coffee")
    page.locator("#batch-go").click()
    report = page.locator("#batch-report")
    expect(report).to_contain_text("2 of 3 photos are in the zip.")
    expect(report.locator("tr.bad")).to_contain_text(
        "notes.jpg is not a picture in a format that is read here"
    )
    expect(page.locator("#batch-gallery .thumbnail-item img")).to_have_count(2)
    name, archive = download(page, "batch-download")
    assert name == "cutouts.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
        assert bundle.namelist() == ["chelsea.png", "coffee.png"]
        np.testing.assert_array_equal(pixels(bundle.read("chelsea.png")), np.asarray(u2netp(CAT).cutout()))


def test_a_model_from_the_hub_is_loaded_and_cuts_out(visit: Visit, hub: HubServer, tiny: Tiny) -> None:
    pushed = tiny(7).push_to_hub("org/seven", token=WRITER)
    page = visit(keep="tabs")
    show(page, "Your model")
    page.get_by_label("Model on the Hub").fill("org/seven")
    page.locator("#your-load").click()
    expect(page.locator("#your-about")).to_contain_text("org/seven")
    expect(page.locator("#your-about")).to_contain_text(pushed.commit[:12])
    choose(page, "your-photo", CAT)
    expect(page.locator("#your-photo img")).to_be_visible()
    page.locator("#your-go").click()
    _, png = download(page, "your-download")
    expected = SaliencyPipeline(tiny(7), device="cpu")(CAT).cutout()
    np.testing.assert_array_equal(pixels(png), np.asarray(expected))


def test_a_model_that_is_none_is_told_in_a_line(visit: Visit) -> None:
    page = visit(keep="tabs")
    show(page, "Your model")
    page.get_by_label("Model on the Hub").fill("../etc")
    page.get_by_label("Model on the Hub").press("Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("'../etc' is not a model on the Hub")


# Photos


def test_a_bad_file_is_told_in_a_line_without_a_trace(visit: Visit, tmp_path: Path) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    page = visit()
    choose(page, "cutout-photo", bad)
    told = page.get_by_test_id("toast-body")
    expect(told).to_contain_text("notes.jpg is not a picture in a format that is read here")
    assert not re.search(r"Traceback|\.py|Error:|/tmp", page.locator("body").inner_text())
    expect(page.locator("#cutout-download")).to_be_disabled()


def test_a_photo_can_be_pasted(visit: Visit) -> None:
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(40, 30);
          canvas.getContext("2d").fillRect(10, 5, 20, 20);
          await navigator.clipboard.write(
            [new ClipboardItem({"image/png": await canvas.convertToBlob({type: "image/png"})})]);
        }"""
    )
    page.locator("#cutout-photo").get_by_role("button", name="Paste from clipboard").click()
    expect(page.locator("#cutout-words")).to_contain_text("40 × 30 px")


# For everybody


def test_everything_can_be_used_from_the_keyboard(visit: Visit) -> None:
    page = visit()

    def tab_to(role: str, name: str) -> None:
        wanted = page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
        for _ in range(40):
            page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                outline = wanted.evaluate("element => getComputedStyle(element).outline")
                assert "solid 2px" in outline, f"{name} has the focus and does not look so: {outline}"
                return
        raise AssertionError(f"the tabulator does not come to {role} {name}")

    for name, button in TABS.items():
        tab_to("tab", name)
        page.keyboard.press("Enter")
        expect(page.locator(f"#{button}")).to_be_visible()
    show(page, "Cutout")
    tab_to("button", "Cut out")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("a photo is missing; choose one first")
    show(page, "Cutout")
    tab_to("button", "Example: grass")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="No salient object found")).to_be_visible()


def test_everything_has_a_name_for_screen_readers(visit: Visit) -> None:
    page = visit(keep="looks")
    nameless = re.compile(
        r"- (button|checkbox|combobox|img|listbox|radio|slider|spinbutton|tab|textbox)(:|$|\s\[)"
    )
    for tab in TABS:
        show(page, tab)
        tree = page.locator("main").aria_snapshot()
        controls = [line.strip() for line in tree.splitlines()]
        assert len(controls) > 20
        assert [line for line in controls if nameless.match(line) and not line.startswith("- img")] == []
        panel = page.get_by_role("tab", name=tab, exact=True).get_attribute("aria-controls")
        expect(page.locator(f"#{panel}")).to_be_visible()


def test_a_narrow_screen_is_never_scrolled_sideways(visit: Visit) -> None:
    page = visit(width=390)

    def check() -> None:
        page.wait_for_function("document.scrollingElement.scrollWidth <= 390")

    for tab in TABS:
        show(page, tab)
        check()
    choose(page, "your-photo", CAT)
    show(page, "Batch")
    choose(page, "batch-files", CAT, EXAMPLES / "README.md", EXAMPLES / "grass.jpg")
    expect(page.locator("#batch-files")).to_contain_text("grass")
    page.locator("#batch-go").click()
    expect(page.locator("#batch-report table")).to_be_visible()
    check()
    for tab, result in (
        ("Cutout", "#cutout-preview img"),
        ("Compare", "#compare-difference img"),
        ("Inside", "#inside-maps img"),
    ):
        show(page, tab)
        choose(page, f"{tab.lower()}-photo", CAT)
        expect(page.locator(result).first).to_be_visible()
        check()


def test_the_page_is_as_wide_in_each_tab(visit: Visit) -> None:
    page = visit(keep="looks")
    widths = set()
    for tab in TABS:
        show(page, tab)
        widths.add(page.evaluate("document.querySelector('main').getBoundingClientRect().width"))
    assert widths == {1180 - 2 * 32}  # and not as wide as what is in it


@pytest.mark.parametrize(
    ("scheme", "query", "dark"),
    [("dark", "", True), ("light", "?__theme=dark", True), ("light", "", False)],
)
def test_the_page_is_dark_where_dark_is_wanted(visit: Visit, scheme: str, query: str, dark: bool) -> None:
    page = visit(query, scheme=scheme, keep="looks")
    show(page, "Cutout")
    background = pixels(page.screenshot())[..., :3].mean(axis=-1)
    if dark:
        assert np.median(background) < 40
        assert np.mean(background > 200) < 0.05  # no block is left white
    else:
        assert np.median(background) > 230


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_words_stand_out_from_their_ground(visit: Visit, scheme: str) -> None:
    page = visit(scheme=scheme, keep="looks")
    for tab in TABS:
        show(page, tab)
        faint = page.evaluate(CONTRASTS)
        assert faint == []


# WCAG 2.2, 1.4.3: at least 4.5 between words and the ground below them, of what is not disabled
CONTRASTS = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [x, y, z] = [r, g, b].map(v => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const words = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const faint = [];
  while (words.nextNode()) {
    const text = words.currentNode.textContent.trim(), element = words.currentNode.parentElement;
    if (!text || !element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    if (element.closest("[disabled], .visually-hidden, .sr-only, .hide, svg, pre")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


def test_the_page_about_the_api_asks_nobody_outside(visit: Visit) -> None:
    page = visit(keep="looks")
    page.get_by_role("button", name=re.compile("Use via API")).click()
    expect(page.get_by_text("/try_model").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.close()  # the next test that looks gets a page without the one about the API


def test_a_request_to_another_host_would_be_noticed(browser: Browser, demo: Demo) -> None:
    """What `visit` looks for is what a page does that fetches a font from outside."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(lambda url: not url.startswith(f"{demo.address}/"), lambda route: route.abort())
    page.set_content('<link rel="stylesheet" href="http://fonts.example/plex.css">')
    assert asked == ["http://fonts.example/plex.css"]
    page.close()
