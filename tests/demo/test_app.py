"""The demo over HTTP, as programs call it and as attackers might."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hub_server import WRITER, HubServer
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("gradio_client")

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from load_demo import load

from u2net_hub import SaliencyPipeline, U2Net
from u2net_hub.cli import app
from u2net_hub.demo import app as app_module
from u2net_hub.demo.app import snippet, sources_from_environment
from u2net_hub.demo.events import MAX_FILES

if TYPE_CHECKING:
    from conftest import Demo

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
    # left by gradio_client's own pools at the end of a session
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Tiny = Callable[[int], U2Net]
ROOT = Path(__file__).resolve().parents[2]
CAT = ROOT / "examples" / "chelsea.jpg"
CHOICES = ["u2netp", "transparent", "#ffffff", None, False, 0.5, False]


@pytest.fixture(scope="module")
def client(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(demo.address, verbose=False, download_files=str(tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def u2netp(remembering: Callable[..., SaliencyPipeline]) -> SaliencyPipeline:
    return remembering("u2netp")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# The API


def test_every_tab_is_a_named_call_and_nothing_else_is(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) == {
        "/cutout", "/compare", "/inside", "/batch", "/load_model", "/try_model",
    }  # fmt: skip
    assert not info["unnamed_endpoints"]


def test_parameters_are_typed_and_documented(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    for endpoint in info["named_endpoints"].values():
        for parameter in endpoint["parameters"]:
            assert parameter["python_type"]["type"]
            assert f"{parameter['parameter_name']}" in endpoint["description"]
    cutout = info["named_endpoints"]["/cutout"]
    types = {each["parameter_name"]: each["python_type"]["type"] for each in cutout["parameters"]}
    assert types["background"] == "Literal['transparent', 'colour', 'picture', 'blur']"
    assert types["threshold"] == "float"
    assert types["crop"] == "bool"
    optional = [each["parameter_name"] for each in cutout["parameters"] if each["parameter_has_default"]]
    names = ("model", "background", "colour", "picture", "hard_edges", "threshold", "crop", "edges")
    assert optional == list(names)
    assert types["edges"] == "Literal['sharp', 'hair', 'soft']"


def test_cutout_gives_the_pipelines_png(client: Client, u2netp: SaliencyPipeline) -> None:
    png, facts = client.predict(handle_file(CAT), api_name="/cutout")
    np.testing.assert_array_equal(pixels(png), np.asarray(u2netp(CAT).cutout()))
    assert Path(png).name == "chelsea_cutout.png"
    assert facts["model"] == "u2netp"


def test_cutout_takes_all_its_parameters(client: Client, u2netp: SaliencyPipeline) -> None:
    coffee = ROOT / "examples" / "coffee.jpg"
    png, _ = client.predict(
        photo=handle_file(CAT), model="u2netp", background="picture", colour="#000000",
        picture=handle_file(coffee), hard_edges=True, threshold=0.4, crop=True, api_name="/cutout",
    )  # fmt: skip
    result = u2netp(CAT)
    box = result.bbox(edges="sharp")
    assert box is not None
    np.testing.assert_array_equal(pixels(png), np.asarray(result.over(coffee, 0.4).crop(box)))


def test_compare_gives_three_pictures_and_the_costs(
    client: Client, demo: Demo, u2netp: SaliencyPipeline
) -> None:
    one, other, apart, facts = client.predict(handle_file(CAT), *demo.models, api_name="/compare")
    np.testing.assert_array_equal(pixels(one), np.asarray(u2netp(CAT).mask(None)))
    assert pixels(one).shape == pixels(other).shape == pixels(apart).shape[:2]
    assert [each["model"] for each in facts["models"]] == list(demo.models)


def test_inside_gives_seven_maps(client: Client, u2netp: SaliencyPipeline) -> None:
    pictures, _ = client.predict(handle_file(CAT), "u2netp", "map alone", api_name="/inside")
    sides = u2netp(CAT, side_outputs=True).side_outputs
    assert sides is not None
    assert len(pictures) == 7
    for picture, expected in zip(pictures[:6], reversed(sides), strict=True):
        np.testing.assert_array_equal(pixels(picture["image"]), np.rint(expected * 255))


def test_batch_gives_a_zip_and_a_report(client: Client) -> None:
    files = [handle_file(CAT), handle_file(ROOT / "LICENSE")]
    archive, report = client.predict(files, api_name="/batch")
    with zipfile.ZipFile(archive) as bundle:
        assert bundle.namelist() == ["chelsea.png"]
    assert [each["error"] is None for each in report] == [True, False]


def test_a_model_from_the_hub_is_loaded_and_tried(
    client: Client, hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    pushed = tiny(3).push_to_hub("org/three", token=WRITER)
    name, facts = client.predict("org/three", api_name="/load_model")
    assert name == f"org/three@{pushed.commit}"
    assert facts["parameters"] == sum(p.numel() for p in tiny(3).parameters())
    png, facts = client.predict(handle_file(CAT), name, api_name="/try_model")
    assert facts["model"] == name
    expected = SaliencyPipeline(tiny(3), device="cpu")(CAT).cutout()
    np.testing.assert_array_equal(pixels(png), np.asarray(expected))


def test_a_private_model_is_not_shown_to_visitors(client: Client, hub: HubServer, tiny: Tiny) -> None:
    tiny(3).push_to_hub("org/secret", token=WRITER, private=True)  # which the server's own token could read
    with pytest.raises(AppError, match="there is no such repo, or it is private"):
        client.predict("org/secret", api_name="/load_model")


def test_the_snippet_on_the_page_runs(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    named: dict[str, Any] = {}
    exec(compile(snippet(demo.address), "snippet", "exec"), named)
    assert pixels(named["png"]).shape == (300, 451, 4)


def test_the_snippet_names_the_space_that_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "org/demo")
    assert 'Client("org/demo")' in snippet()


# Holding up


def test_a_bad_file_is_told_and_no_more(client: Client) -> None:
    with pytest.raises(AppError) as told:
        client.predict(handle_file(ROOT / "LICENSE"), api_name="/cutout")
    assert str(told.value).startswith("LICENSE is not a picture in a format that is read here")
    assert "Traceback" not in str(told.value)


def test_a_file_over_20_mb_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(20_000_001))
    with pytest.raises(Exception, match=r"413|maximum"):
        client.predict(handle_file(tmp_path / "large.png"), api_name="/cutout")


def test_too_many_files_are_refused(client: Client) -> None:
    with pytest.raises(AppError, match=f"expected at most {MAX_FILES} at once"):
        client.predict([handle_file(CAT)] * (MAX_FILES + 1), api_name="/batch")


def post(demo: Demo, endpoint: str, *data: object) -> tuple[int, str]:
    """A call without the client, which would not send such data: status and what comes back."""
    body = json.dumps({"data": data}).encode()
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/call/{endpoint}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{request.full_url}/{event}", timeout=60) as stream:
            return 200, stream.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def get(demo: Demo, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(demo.address + path, timeout=30) as answer:
            return answer.status, answer.read().decode("latin-1")
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode("latin-1")


@pytest.mark.parametrize("path", ["/etc/passwd", str(CAT), "../../etc/passwd", "/proc/self/environ"])
def test_a_call_reads_no_other_file(demo: Demo, path: str) -> None:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for sent in (named, {"path": path}, {**named, "url": f"file://{path}"}, path):
        for endpoint, data in (("cutout", [sent, *CHOICES]), ("batch", [[sent], "u2netp", "mask"])):
            status, answer = post(demo, endpoint, *data)
            assert status == 200
            assert answer.startswith("event: error")
            assert "root:" not in answer


@pytest.mark.parametrize("path", ["/etc/passwd", str(CAT), "pyproject.toml", "/proc/self/environ"])
def test_no_other_file_is_served(demo: Demo, path: str) -> None:
    assert get(demo, f"/gradio_api/file={path}")[0] == 403


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another server on this machine, which should never be asked: its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_address_is_fetched(demo: Demo, elsewhere: tuple[str, list[str]]) -> None:
    address, asked = elsewhere
    for scheme in (address, address.upper(), f" {address}"):
        named = {"path": f"{scheme}/cat.jpg", "meta": {"_type": "gradio.FileData"}}
        for endpoint, data in (
            ("cutout", [named, *CHOICES]),
            ("cutout", [None, "u2netp", named]),
            ("batch", [[named], "u2netp", "mask"]),
            ("load_model", [named]),
        ):
            assert post(demo, endpoint, *data)[0] == 403
    by_url = {"path": "cat.jpg", "url": f"{address}/cat.jpg", "meta": {"_type": "gradio.FileData"}}
    assert post(demo, "cutout", by_url, *CHOICES)[1].startswith("event: error")
    for path in (f"/gradio_api/file={address}/a", f"/gradio_api/proxy={address}/a"):
        assert get(demo, path)[0] == 404
    assert asked == []


@pytest.mark.parametrize("data", [[], [{}], [["x"], 1, 2], [None, ["u2netp"]], [{"path": 7}, "u2netp"]])
def test_nonsense_is_answered_with_an_error(demo: Demo, data: list[object]) -> None:
    status, answer = post(demo, "cutout", *data)
    assert status in (400, 422, 500) or answer.startswith("event: error")
    assert "Traceback" not in answer


def test_calls_cannot_pass_the_queue_by(demo: Demo) -> None:
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/run/cutout", b'{"data": []}', {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        assert answer.code == 404


def test_nobody_watches_the_visitors(demo: Demo) -> None:
    for path in ("/monitoring", "/monitoring/summary", "/gradio_api/runs"):
        assert get(demo, path)[0] in (403, 404)
    config = json.loads(get(demo, "/config")[1])
    assert config["analytics_enabled"] is False


def test_thirty_requests_of_four_visitors_are_answered_and_memory_stays(demo: Demo) -> None:
    report = load(demo.address, demo.pid, requests=30, visitors=4, model=demo.models[1], longest=300)
    assert report.failures == []
    assert sum(report.answered.values()) == 30
    assert report.growth < 100  # MiB in the second half; 500 requests are for a run by hand


# Starting


def test_the_bundled_model_is_what_it_starts_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("U2NET_MODELS", raising=False)
    assert sources_from_environment() == ["u2netp", "u2netp-168"]


def test_the_environment_names_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("U2NET_MODELS", "org/u2netp, org/u2net@v1,")
    assert sources_from_environment() == ["org/u2netp", "org/u2net@v1"]


def test_with_one_model_compare_says_how_to_add_the_other(tiny_source: Path, tmp_path: Path) -> None:
    models = app_module.Models([str(tiny_source)], device="cpu")
    config = json.dumps(app_module.build(models, tmp_path).get_config_file(), default=str)
    assert f"U2NET_MODELS={tiny_source.name},org/u2net u2net demo" in config
    assert "compare-go" not in config


def test_the_command_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}
    monkeypatch.setattr(
        "u2net_hub.demo.launch", lambda models, **options: called.update(options, models=models)
    )
    arguments = [
        "demo",
        "--model",
        "a",
        "--model",
        "b",
        "--device",
        "cpu",
        "--engine",
        "torch",
        "--precision",
        "fast",
        "--port",
        "7000",
        "--host",
        "0.0.0.0",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    called.pop("on_ready")
    where = {"host": "0.0.0.0", "port": 7000}
    how = {"device": "cpu", "engine": "torch", "precision": "fast"}
    assert called == {"models": ["a", "b"], **how, **where}


def test_files_of_visitors_are_gone_when_it_stops(client: Client, demo: Demo) -> None:
    """The last test here, because starting another demo would take six seconds of a core."""
    client.predict(handle_file(CAT), api_name="/cutout")
    assert list(demo.scratch.glob("u2net-demo-*/*/chelsea*"))
    demo.stop()
    assert not list(demo.scratch.glob("u2net-demo-*"))
