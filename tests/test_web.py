"""The page that cuts out photos without a server (space/web), in a real browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http.client import IncompleteRead
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from PIL import Image

from u2net_hub import SaliencyPipeline, SaliencyResult, U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.demo.space import space_files
from u2net_hub.engines import exporting

pytest.importorskip("onnxruntime")
pytest.importorskip("playwright", reason="playwright drives the browser; install u2net-hub[test]")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "space" / "web"
EXAMPLES = ROOT / "examples"
CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def web() -> ModuleType:
    """The script that builds the page."""
    spec = importlib.util.spec_from_file_location("build_web", WEB / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(web: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The page as its script builds it, and the bytes of a first visit."""
    folder = tmp_path_factory.mktemp("web") / "page"
    with pytest.MonkeyPatch.context() as patch:
        # the maps are compared below, in the browser
        patch.setattr(exporting, "check_exported", lambda *_, **__: 0.0)
        try:
            return folder, web.build(folder)
        except OSError as e:
            pytest.skip(f"the npm registry cannot be reached: {e}")


class Light(NamedTuple):
    """The page with a tiny network."""

    folder: Path
    pipeline: SaliencyPipeline


class Host:
    """A plain host of files, which serves the page in a subfolder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.bytes = 0
        self.first_bytes = 0  # of the first visit alone
        self.down = False
        host = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                host.asked.append(path)
                if host.down or not path.startswith("/some/folder/"):
                    self.send_error(503)
                    return
                super().do_GET()

            def translate_path(self, path: str) -> str:
                name = path.partition("?")[0].removeprefix("/some/folder/") or "index.html"
                return str(host.folder / name)

            def copyfile(self, source: Any, outputfile: Any) -> None:
                content = source.read()
                host.bytes += len(content)
                outputfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a visitor left
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.address = f"{self.origin}/some/folder/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def host(built: tuple[Path, dict[str, int]]) -> Iterator[Host]:
    opened = Host(built[0])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def light(
    web: ModuleType, built: tuple[Path, dict[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> Light:
    """The page with a network that takes no time: its confidence is that of its map, whatever it shows."""
    torch.manual_seed(0)
    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))
    config = U2NetConfig(variant="custom", stages=stages, input_size=(64, 64), minmax="always")
    network = U2Net(config).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "check_exported", lambda *_, **__: 0.0)
        packed = web.pack_network(network)
    folder = shutil.copytree(built[0], tmp_path_factory.mktemp("light") / "page")
    publish(web, folder, packed)
    return Light(folder, SaliencyPipeline(network, device="cpu"))


@pytest.fixture(scope="module")
def light_host(light: Light) -> Iterator[Host]:
    opened = Host(light.folder)
    yield opened
    opened.close()


@pytest.fixture
def other_host(light: Light, tmp_path: Path) -> Iterator[Host]:
    """A host with a copy of the page, which a test may change."""
    opened = Host(shutil.copytree(light.folder, tmp_path / "page"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


def launch(playwright: Playwright, *options: str) -> Browser:
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    arguments = ["--no-sandbox", nowhere, *options]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    chromium = launch(playwright)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def graphics(playwright: Playwright, light_host: Host) -> Iterator[Browser]:
    """A browser with a graphics processor, which SwiftShader simulates."""
    chromium = launch(playwright, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    page = chromium.new_page()
    page.goto(f"{light_host.address}style.css")
    if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no SwiftShader for WebGPU")
    page.close()
    yield chromium
    chromium.close()


class Visitor:
    """A browser that has never seen the page, and what it asked for and complained of."""

    def __init__(self, browser: Browser, host: Host, query: str = "") -> None:
        self.host = host
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.context: BrowserContext = browser.new_context(reduced_motion="reduce")
        self.context.set_default_timeout(60_000)
        self.context.on("request", lambda request: self.ask(request.url))
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        self.page: Page = self.context.new_page()
        self.page.on("websocket", lambda socket: self.outside.append(socket.url))
        self.page.goto(host.address + query)
        self.wait()
        host.first_bytes = host.first_bytes or host.bytes

    def wait(self) -> None:
        expect(self.page.locator("html[data-ready]")).to_be_attached()

    def ask(self, url: str) -> None:
        if not url.startswith((self.host.address, f"blob:{self.host.origin}/")):
            self.outside.append(url)

    def choose(self, *files: Any) -> None:
        self.page.set_input_files("#files", list(files))

    def cut(self, file: Any, edges: str = "sharp") -> None:
        """Choose one photo and wait for its cutout."""
        self.page.check(f"[value={edges}]")
        self.choose(file)
        expect(self.page.locator("#save")).to_be_enabled()

    def save(self) -> Image.Image:
        """Download what is on the stage."""
        expect(self.page.locator("#working")).to_be_empty()
        with self.page.expect_download() as download:
            self.page.click("#save")
        picture = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
        picture.load()
        return picture


@pytest.fixture(scope="module")
def whole(browser: Browser, host: Host) -> Iterator[Visitor]:
    """A visitor of the page as it is published, with U²-Net†."""
    visitor = Visitor(browser, host)
    yield visitor
    visitor.context.close()
    assert visitor.outside == []
    assert visitor.errors == []


@pytest.fixture(scope="module")
def _first(browser: Browser, light_host: Host) -> Iterator[Visitor]:
    visitor = Visitor(browser, light_host)
    yield visitor
    visitor.context.close()


@pytest.fixture
def visitor(_first: Visitor) -> Iterator[Visitor]:
    """A visitor of the page with a tiny network; a test may ask for nothing outside and cause no error."""
    _first.page.set_viewport_size({"width": 1280, "height": 900})
    _first.page.check("[value=transparent]")
    yield _first
    assert _first.outside == []
    assert _first.errors == []


@pytest.fixture
def new_visitor(browser: Browser) -> Iterator[Callable[[Host], Visitor]]:
    """Makes visitors for whom everything is new."""
    made: list[Visitor] = []

    def visit(host: Host) -> Visitor:
        made.append(Visitor(browser, host))
        return made[-1]

    yield visit
    for each in made:
        each.context.close()
        assert each.outside == []


@pytest.fixture(scope="module")
def result(remembering: Callable[..., SaliencyPipeline]) -> Callable[[str], SaliencyResult]:
    """What the pipeline makes of an example."""
    pipeline = remembering("u2netp", engine="onnxruntime")
    return cache(lambda name: pipeline(EXAMPLES / name))


def upload(name: str, picture: Image.Image, **how: Any) -> dict[str, object]:
    """A picture as a file that a visitor chooses."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if name.endswith("jpg") else "PNG", **how)
    return {"name": name, "mimeType": "", "buffer": buffer.getvalue()}


def levels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(picture, np.float64) / 255


BROKEN = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8 no photo"}


# the build


def test_an_archive_of_the_runtime_with_another_hash_is_refused(
    web: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(web.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"something else"))
    with pytest.raises(ValueError, match="has not the SHA-512"):
        web.read_runtime()
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_replaced(web: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is no build of this page"):
        web.build(tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_a_folder_with_more_than_a_build_is_not_replaced(
    web: ModuleType, built: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    web.check_replaceable(built[0])
    (tmp_path / "sw.js").write_bytes((built[0] / "sw.js").read_bytes())
    web.check_replaceable(tmp_path)
    (tmp_path / ".git").mkdir()
    with pytest.raises(FileExistsError, match=r"it holds \['.git'\]"):
        web.build(tmp_path)


def test_a_service_worker_of_another_page_is_not_replaced(web: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sw.js").write_text("// another page")
    with pytest.raises(FileExistsError, match="is no build of this page"):
        web.build(tmp_path)


def test_a_registry_that_breaks_off_is_told(
    web: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class BrokenOff(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise IncompleteRead(b"half")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(web.urllib.request, "urlopen", lambda *_, **__: BrokenOff())
    with pytest.raises(OSError, match="set NPM_CONFIG_REGISTRY"):
        web.read_runtime()


def test_a_network_that_the_page_cannot_run_is_refused(web: ModuleType) -> None:
    with pytest.raises(ValueError, match="invert=True"):
        web.check_config(U2NetConfig(invert=True))


def test_a_first_visit_takes_at_most_ten_megabytes(built: tuple[Path, dict[str, int]]) -> None:
    assert set(built[1]) == {"wasm", "webgpu", "jspi"}
    assert max(built[1].values()) <= 10_000_000


def test_the_notices_name_the_licence_of_the_runtime(
    web: ModuleType, built: tuple[Path, dict[str, int]]
) -> None:
    notice = (built[0] / "NOTICE").read_text(encoding="utf-8")
    assert f"ONNX Runtime Web {web.RUNTIME_VERSION}" in notice
    assert "Copyright (c) Microsoft Corporation" in notice


def test_nothing_is_left_to_fill_in(built: tuple[Path, dict[str, int]]) -> None:
    texts = [path for path in built[0].iterdir() if path.suffix in (".html", ".js", ".css", ".json", "")]
    assert [path.name for path in texts if b"{{" in path.read_bytes()] == []


def test_the_front_matter_is_that_of_a_static_space() -> None:
    match = REGEX_YAML_BLOCK.search((WEB / "README.md").read_text(encoding="utf-8"))
    assert match is not None
    fields = yaml.safe_load(match.group(2))
    assert fields["sdk"] == "static"
    assert fields["app_file"] == "index.html"
    assert len(fields["short_description"]) <= 60


def test_the_gradio_space_does_not_hold_the_page() -> None:
    assert not [name for name in space_files() if name.startswith("web")]


# the result


@in_browser
@pytest.mark.parametrize("name", ["astronaut.jpg", "chelsea.jpg"])
def test_the_cutout_is_that_of_the_pipeline(
    whole: Visitor, result: Callable[[str], SaliencyResult], name: str
) -> None:
    whole.page.check("[value=transparent]")
    whole.cut(EXAMPLES / name, "soft")
    for edges, bound in (("soft", 0.005), ("sharp", 0.002), ("hair", 0.002)):
        whole.page.check(f"[value={edges}]")
        found, expected = whole.save(), result(name).cutout(edges=edges)  # type: ignore[arg-type]
        assert found.mode == "RGBA"
        difference = np.abs(levels(found) - levels(expected))
        assert difference[..., 3].mean() <= bound
        seen = np.asarray(expected.getchannel("A")) > 0
        assert difference[seen][:, :3].mean() <= 0.002  # of JPEG decoders, and at the edges
    expect(whole.page.locator("#verdict")).to_contain_text(f"Confidence {result(name).confidence:.2f}")
    whole.page.check("[value=colour]")
    whole.page.fill("#colour", "#ff8800")
    found = whole.save()
    assert found.mode == "RGB"
    assert np.abs(levels(found) - levels(result(name).over("#ff8800", edges="hair"))).mean() <= 0.002


@in_browser
def test_the_first_visit_takes_the_bytes_that_the_build_counts(
    whole: Visitor, built: tuple[Path, dict[str, int]]
) -> None:
    asked = set(whole.host.asked)
    assert not [name for name in asked if "webgpu" in name or "jspi" in name]
    assert whole.host.first_bytes <= 1.05 * built[1]["wasm"]  # the page and its scripts come twice


@in_browser
def test_photos_are_turned_upright_and_their_transparency_is_kept(visitor: Visitor, light: Light) -> None:
    photo = Image.open(EXAMPLES / "chelsea.jpg").resize((226, 150))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90° to the right
    turned = upload("turned.jpg", photo, exif=exif, quality=95)
    half = photo.copy()
    half.putalpha(Image.linear_gradient("L").resize(photo.size))
    for file in (turned, upload("half.png", half)):
        visitor.cut(file, "soft")
        found, expected = visitor.save(), light.pipeline(file["buffer"]).cutout(edges="soft")  # type: ignore[call-overload]
        assert found.size == expected.size
        assert np.abs(levels(found) - levels(expected))[..., 3].mean() <= 0.005


@in_browser
def test_pictures_are_resized_as_pillow_does(visitor: Visitor, rng: np.random.Generator) -> None:
    script = """async ([text, w, h, W, H]) => {
        const {resizeBytes, resizeGap} = await import("./resize.js");
        const data = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        const photo = {data, width: w, height: h, stride: 3, channels: 3};
        return [resizeBytes(photo, W, H), resizeGap(photo, W, H)].map(each => [...each.data]);
    }"""
    for size, wanted in (((97, 61), (32, 32)), ((20, 61), (32, 9)), ((33, 150), (32, 13))):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        text = base64.b64encode(pixels.tobytes()).decode()
        plain, gap = visitor.page.evaluate(script, [text, *size, *wanted])
        photo = Image.fromarray(pixels)
        assert plain == np.asarray(photo.resize(wanted, Image.Resampling.BILINEAR)).ravel().tolist()
        expected = np.asarray(photo.resize(wanted, Image.Resampling.BILINEAR, reducing_gap=2), int).ravel()
        assert np.abs(np.array(gap) - expected).max() <= 1


@in_browser
def test_the_page_goes_on_while_twelve_megapixels_are_cut_out(visitor: Visitor) -> None:
    photo = Image.open(EXAMPLES / "astronaut.jpg").resize((4000, 3000))
    visitor.page.evaluate("window.ticks = 0; window.ticking = setInterval(() => ticks++, 20)")
    visitor.cut(upload("large.jpg", photo))
    ticks = visitor.page.evaluate("clearInterval(window.ticking), window.ticks")
    assert visitor.page.inner_text("#facts").startswith("size\n4000 × 3000 px")
    assert ticks >= 20  # the work takes seconds; with it on the page there would be one or two


# the page


@in_browser
def test_a_broken_file_is_told_and_the_next_photo_works(visitor: Visitor) -> None:
    visitor.choose(BROKEN)
    expect(visitor.page.locator("#problem")).to_contain_text("broken.jpg: This file cannot be read")
    expect(visitor.page.locator("#save")).to_be_disabled()
    visitor.cut(EXAMPLES / "chelsea.jpg")
    expect(visitor.page.locator("#problem")).to_be_hidden()
    expect(visitor.page.locator("#verdict")).to_contain_text("onfidence")


@in_browser
def test_several_photos_become_a_zip_file(visitor: Visitor) -> None:
    small = Image.open(EXAMPLES / "chelsea.jpg").resize((90, 60))
    visitor.choose(upload("a.png", small), BROKEN, upload("a.jpg", small))
    rows = visitor.page.locator("#rows li")
    expect(rows).to_have_count(3)
    expect(visitor.page.locator("#save-all")).to_be_enabled()
    expect(rows.nth(0)).to_contain_text("done")
    expect(rows.nth(1)).to_contain_text("cannot be read")
    with visitor.page.expect_download() as download:
        visitor.page.click("#save-all")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.png", "a-2.png"]
        assert Image.open(archive.open("a.png")).size == (90, 60)


@in_browser
def test_a_photo_can_be_dropped_on_the_page(visitor: Visitor) -> None:
    content = base64.b64encode((EXAMPLES / "chelsea.jpg").read_bytes()).decode()
    transfer = visitor.page.evaluate_handle(
        """text => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
            return data;
        }""",
        content,
    )
    visitor.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(visitor.page.locator("#save")).to_be_disabled()
    expect(visitor.page.locator("#save")).to_be_enabled()


@in_browser
def test_what_cannot_be_read_in_a_dropped_folder_is_named(visitor: Visitor) -> None:
    visitor.page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const photo = new File([bytes], "good.jpg", {type: "image/jpeg"});
            const once = entries => () => ({readEntries: done => done(entries.splice(0))});
            const locked = {name: "locked", isDirectory: true,
                createReader: () => ({readEntries: (_, failed) => failed(new DOMException("no"))})};
            const good = {name: "good.jpg", isFile: true, file: done => done(photo)};
            const folder = {name: "folder", isDirectory: true, createReader: once([locked, good])};
            const drop = new Event("drop", {bubbles: true, cancelable: true});
            drop.dataTransfer = {items: [{webkitGetAsEntry: () => folder}], files: []};
            document.body.dispatchEvent(drop);
        }""",
        base64.b64encode((EXAMPLES / "chelsea.jpg").read_bytes()).decode(),
    )
    rows = visitor.page.locator("#rows li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("done")
    expect(rows.nth(1)).to_contain_text("locked")
    expect(rows.nth(1)).to_contain_text("The browser cannot read it")


@in_browser
def test_the_keyboard_is_enough(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate("document.activeElement.blur()")

    def tab_to(selector: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"no Tab leads to {selector}")

    page.check("[value=sharp]")
    tab_to("#files")
    assert page.evaluate("document.activeElement.type") == "file"  # the browser opens it by Enter
    page.set_input_files(":focus", EXAMPLES / "chelsea.jpg")
    expect(page.locator("#save")).to_be_enabled()
    tab_to("[name=edges]")
    page.keyboard.press("ArrowUp")
    assert page.is_checked("[value=soft]")
    tab_to("#split")
    page.keyboard.press("End")
    assert page.input_value("#split") == "100"
    expect(page.locator("#working")).to_be_empty()
    tab_to("#save")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "chelsea_cutout.png"
    page.fill("#split", "50")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visitor: Visitor, scheme: str) -> None:
    visitor.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    visitor.page.check("[value=colour]")
    found = Axe().run(visitor.page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


@in_browser
def test_a_phone_shows_the_page_without_scrolling_sideways(visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 390, "height": 800})
    expect(visitor.page.locator("#stage")).to_be_visible()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390


@in_browser
def test_the_checkerboard_ends_where_the_picture_ends(visitor: Visitor) -> None:
    visitor.cut(EXAMPLES / "chelsea.jpg", "soft")
    box = visitor.page.locator("#stage").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(451 / 300, rel=0.01)


@in_browser
def test_nothing_may_be_fetched_from_elsewhere(visitor: Visitor, other_host: Host) -> None:
    script = """async address => {
        const work = new Worker("worker.js", {type: "module"});
        work.terminate();
        return fetch(address).then(() => "allowed", () => "refused");
    }"""
    assert visitor.page.evaluate(script, other_host.address) == "refused"
    assert other_host.asked == []
    visitor.errors.clear()  # the refusal


# without a connection, and with a new build


@in_browser
def test_after_the_first_visit_the_page_works_offline(
    new_visitor: Callable[[Host], Visitor], other_host: Host
) -> None:
    visitor = new_visitor(other_host)
    expect(visitor.page.locator("#offline")).to_be_visible()
    other_host.down = True
    visitor.page.reload()
    visitor.wait()
    assert visitor.page.evaluate("crossOriginIsolated")  # so that threads are allowed
    visitor.page.click("[data-example='chelsea.jpg']")
    expect(visitor.page.locator("#save")).to_be_enabled()


@in_browser
def test_a_new_build_takes_over_as_a_whole(
    new_visitor: Callable[[Host], Visitor], web: ModuleType, other_host: Host
) -> None:
    visitor = new_visitor(other_host)
    page = (WEB / "page" / "index.html").read_text(encoding="utf-8")
    changed = re.sub("<title>.*</title>", "<title>A new build</title>", page).encode()
    publish(web, other_host.folder, {"index.html": changed})
    other_host.asked.clear()
    visitor.page.evaluate("navigator.serviceWorker.getRegistration().then(found => found.update())")
    expect(visitor.page.locator("#update")).to_be_visible()
    assert visitor.page.title() != "A new build"
    visitor.page.click("#reload")
    expect(visitor.page).to_have_title("A new build")
    visitor.wait()
    assert not [name for name in other_host.asked if name.endswith(".pack")]  # they are as before
    kept = visitor.page.evaluate(
        "async () => (await (await caches.open((await caches.keys())[0])).keys()).map(each => each.url)"
    )
    assert len([address for address in kept if "index.html" in address]) == 1


@in_browser
def test_every_window_can_load_a_new_build(
    new_visitor: Callable[[Host], Visitor], web: ModuleType, other_host: Host
) -> None:
    visitor = new_visitor(other_host)
    second = visitor.context.new_page()
    second.goto(other_host.address)
    for page in (visitor.page, second):
        expect(page.locator("html[data-ready]")).to_be_attached()
    publish(web, other_host.folder, {"style.css": b"/* a new build */"})
    visitor.page.evaluate("navigator.serviceWorker.getRegistration().then(found => found.update())")
    expect(second.locator("#update")).to_be_visible()
    second.evaluate("window.earlier = true")
    with visitor.page.expect_navigation():
        visitor.page.click("#reload")
    with second.expect_navigation():
        second.click("#reload")
    assert second.evaluate("window.earlier") is None


@in_browser
def test_a_host_with_parts_of_two_builds_is_not_stored(
    new_visitor: Callable[[Host], Visitor], other_host: Host
) -> None:
    with (other_host.folder / "style.css").open("a") as file:
        file.write("/* of another build */")
    visitor = new_visitor(other_host)  # the page works all the same
    expect(visitor.page.locator("#offline")).to_be_hidden()
    assert visitor.page.evaluate("navigator.serviceWorker.controller") is None


@in_browser
def test_the_network_runs_by_webgpu(graphics: Browser, light_host: Host) -> None:
    # the page is ready only after the map of a known picture was right
    visitor = Visitor(graphics, light_host, "?engine=jspi")
    try:
        expect(visitor.page.locator("html[data-ready=webgpu]")).to_be_attached()
    finally:
        visitor.context.close()
    assert visitor.outside == []


def publish(web: ModuleType, folder: Path, changed: Mapping[str, bytes]) -> None:
    """Put a build with other files in the place of one, as `build` does."""
    script = (folder / "sw.js").read_text()
    listing = re.search(r"const FILES = (\{.*?\});", script, re.DOTALL)
    later = re.search(r"const LATER = (\[.*?\]);", script)
    assert listing is not None
    assert later is not None
    files = {name: (folder / name).read_bytes() for name in json.loads(listing[1])}
    files |= {name: (WEB / "page" / name).read_bytes() for name in ("index.html", "sw.js")}
    words = {"NETWORK": "u2netp", "PARAMETERS": "1,131,181"}
    web.replace(folder, web.fill(files | dict(changed), words, {"all": json.loads(later[1])}) | web.legal())
