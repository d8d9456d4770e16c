"""The demo over HTTP, as programs call it and as attackers might."""

from __future__ import annotations

import json
import re
import secrets
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hub_server import WRITER, HubServer
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("gradio_client")

import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from load_demo import load, resident

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
        "/cutout", "/mask", "/compare", "/inside", "/batch", "/load_model", "/try_model",
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
    assert "an address is not fetched" in cutout["description"]
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
        photo=handle_file(CAT), model="u2netp", background="picture", colour="black",
        picture=handle_file(coffee), hard_edges=True, threshold=0.4, crop=True, api_name="/cutout",
    )  # fmt: skip
    result = u2netp(CAT)
    box = result.bbox(edges="sharp")
    assert box is not None
    np.testing.assert_array_equal(pixels(png), np.asarray(result.over(coffee, 0.4).crop(box)))


def test_mask_gives_the_pipelines_png(client: Client, u2netp: SaliencyPipeline) -> None:
    png, facts = client.predict(handle_file(CAT), api_name="/mask")
    np.testing.assert_array_equal(pixels(png), np.asarray(u2netp(CAT).mask(None)))
    assert facts["found"] is True


def test_the_other_ways_to_call_give_the_same(demo: Demo) -> None:
    status, answer = post(demo, "v2/mask", photo=uploaded(demo, CAT), model="u2netp")
    assert status == 200
    assert '"found": true' in answer


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


def post(demo: Demo, endpoint: str, *data: object, **named: object) -> tuple[int, str]:
    """A call without the client, which would not send such data: status and what comes back."""
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/call/{endpoint}",
        json.dumps(named or {"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{request.full_url}/{event}", timeout=60) as stream:
            return 200, stream.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def uploaded(demo: Demo, path: Path) -> dict[str, object]:
    """A photo on the server, as a call names it."""
    body = b"--x\r\nContent-Disposition: form-data; name=files; filename=%s\r\n\r\n%s\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/upload",
        body % (path.name.encode(), path.read_bytes()),
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {"path": json.load(answer)[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


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
            assert status in (400, 403)
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


def every_route(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The method and path of each route of an app, those of its routers included."""
    for route in routes:
        inner = getattr(route, "original_router", route)
        if getattr(inner, "routes", None):
            yield from every_route(inner.routes)
        for method in getattr(route, "methods", None) or ():
            yield method, route.path


def test_no_route_of_the_app_fetches_an_address(
    tiny_source: Path, elsewhere: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = elsewhere
    with app_module.serve([str(tiny_source)], device="cpu") as blocks:
        routes = sorted(set(every_route(blocks.app.routes)))
        own = httpx.Client(base_url=blocks.local_url, timeout=30)
        assert ("POST", "/gradio_api/run/{api_name}") in routes
        assert len(routes) > 60
        sent = {"path": f"{address}/a.png", "url": f"{address}/b.png", "meta": {"_type": "gradio.FileData"}}
        data = [sent, [sent], sent["path"]]
        for method, path in routes:
            filled = re.sub(r"{url_path:path}|{path_or_url:path}", f"{address}/route", path)
            for name in ("upload", "cutout") if "{api_name}" in path else ("x",):
                where = re.sub(r"{[^}]*}", name, filled)
                if method != "POST":
                    with own.stream(method, where, params={"session_hash": "s"}):
                        continue
                call = {"data": data, "fn_index": 0, "session_hash": "s"}
                answers = [
                    own.post(where, json=call),
                    own.post(where, json={"photo": sent}),
                    own.post(where, content=json.dumps(call), headers={"Content-Type": "text/plain"}),
                    own.post(where, data={"data": sent["path"]}),
                ]
                if path != "/gradio_api/upload":
                    answers.append(own.post(where, files={"files": b"x"}, data={"data": sent["path"]}))
                assert all(answer.status_code >= 400 for answer in answers)
        for number in blocks.fns:
            call = {"data": data, "fn_index": number, "session_hash": "s"}
            assert own.post("/gradio_api/queue/join", json=call).status_code == 403
        own.close()
    assert asked == []


NONSENSE: list[Any] = [
    [], [{}], [["x"], 1, 2], [None, ["u2netp"]], [{"path": 7}, "u2netp"],
    [None, {"a": 1}, *CHOICES[1:], "sharp"], [None, *CHOICES[:5], "half", False, "sharp"],
    [{"path": "a\0b", "meta": {"_type": "gradio.FileData"}}, *CHOICES, "sharp"],
]  # fmt: skip


def test_nonsense_is_answered_in_a_line_and_prints_no_traceback(demo: Demo) -> None:
    before = demo.log.stat().st_size
    for data in NONSENSE:
        for endpoint in ("cutout", "inside", "batch", "load_model", "unknown"):
            status, answer = post(demo, endpoint, *data)
            assert status == 400
            assert "Traceback" not in answer
    assert post(demo, "v2/cutout", nonsense=1)[0] == 400
    photo = uploaded(demo, CAT)
    for view in ("heat", "MAP ALONE", ""):
        assert post(demo, "inside", photo, "u2netp", view)[1].startswith("event: error")
    with httpx.Client(base_url=demo.address) as own:
        for call in ({"data": [], "fn_index": 10_000}, {"data": []}, {"data": [], "fn_index": 0}):
            assert own.post("/gradio_api/queue/join", json={**call, "session_hash": "s"}).status_code == 400
        unknown = ("queue/data?session_hash=unknown", "call/mask/nonsense", "call/v2/mask/nonsense")
        for path in (*(f"/gradio_api/{each}" for each in unknown), f"/assets/{'a' * 3000}"):
            assert own.get(path).status_code == 404
        text = {"files": (None, b"a text, not a file")}
        for path in ("upload", "upload?upload_id=a", f"upload?upload_id={'a' * 5000}"):
            assert own.post(f"/gradio_api/{path}", files=text).status_code == 400
    assert demo.log.read_text()[before:] == ""


def test_calls_cannot_pass_the_queue_by(demo: Demo) -> None:
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/run/cutout", b'{"data": []}', {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        assert answer.code == 404


def test_the_example_of_the_api_page_is_one_of_ours_and_works_as_it_stands(
    demo: Demo, client: Client
) -> None:
    info = json.loads(get(demo, "/gradio_api/info")[1])["named_endpoints"]["/mask"]["parameters"]
    example = info[0]["example_input"]
    assert example["path"].startswith(f"{demo.address}/gradio_api/file=")
    assert "githubusercontent" not in json.dumps(info)
    assert '"width": 451, "height": 300' in post(demo, "v2/mask", photo=example)[1]
    _, facts = client.predict(handle_file(example["path"]), api_name="/mask")
    assert (facts["width"], facts["height"]) == (451, 300)


def test_nobody_watches_the_visitors(demo: Demo) -> None:
    for path in ("/monitoring", "/monitoring/summary", "/gradio_api/runs"):
        assert get(demo, path)[0] in (403, 404)
    config = json.loads(get(demo, "/config")[1])
    assert config["analytics_enabled"] is False


def test_two_visitors_get_their_cutouts_while_another_one_floods_the_demo(demo: Demo) -> None:
    photo = uploaded(demo, CAT)
    flood = [[{**photo, "orig_name": f"{i}.jpg"} for i in range(30)], demo.models[1], "mask"]
    flood += ["transparent", "#ffffff", None, False, "sharp"]

    def join(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        with httpx.Client(base_url=demo.address, headers=headers, timeout=60) as own:
            call = {"data": flood, "session_hash": secrets.token_hex(8), "fn_index": batch}
            return own.post("/gradio_api/queue/join", json=call).status_code

    config = json.loads(get(demo, "/config")[1])
    batch = next(each["id"] for each in config["dependencies"] if each["api_name"] == "batch")
    with ThreadPoolExecutor(8) as pool:
        flooded = [pool.submit(join, "6.6.6.6") for _ in range(66)]
        clients = [
            Client(demo.address, verbose=False, headers={"X-Forwarded-For": f"1.1.1.{i}"}) for i in (1, 2)
        ]
        jobs = [pool.submit(each.predict, handle_file(CAT), "u2netp", api_name="/cutout") for each in clients]
        assert [job.result(timeout=60)[1]["found"] for job in jobs] == [True, True]
        assert {each.result(timeout=60) for each in flooded} <= {200, 503}


def test_memory_stays_flat_over_the_sessions_of_many_visitors(demo: Demo) -> None:
    """500 sessions took 170 MiB when Gradio kept each. Here are enough to see that it does not: 50 MiB."""
    config = json.loads(get(demo, "/config")[1])
    dataset = next(each["id"] for each in config["components"] if each["type"] == "dataset")
    pick = next(each["id"] for each in config["dependencies"] if each["inputs"] == [dataset])
    with httpx.Client(base_url=demo.address, timeout=60) as own:

        def visit(count: int) -> float:
            for _ in range(count):
                session = secrets.token_hex(8)
                call = {"data": [0], "session_hash": session, "fn_index": pick}
                assert own.post("/gradio_api/queue/join", json=call).status_code == 200
                with own.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
                    assert "process_completed" in stream.read().decode()
            return resident(demo.pid)

        before = visit(20)
        assert visit(150) - before < 20


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


def test_with_one_model_there_is_nothing_to_compare(tiny_source: Path, tmp_path: Path) -> None:
    models = app_module.Models([str(tiny_source)], device="cpu")
    page = json.dumps(app_module.build(models, tmp_path)[0].get_config_file(), default=str)
    assert "tab-inside" in page
    assert "tab-compare" not in page


def test_offline_there_are_no_models_to_load(tiny_source: Path, tmp_path: Path) -> None:
    models = app_module.Models([str(tiny_source)], device="cpu")
    page = json.dumps(app_module.build(models, tmp_path, online=False)[0].get_config_file(), default=str)
    assert "tab-batch" in page
    assert "tab-your" not in page


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
