"""rembg's functions: what goes in comes out, and each difference has an argument that ends it."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from u2net_hub import Cleanup, SaliencyPipeline, Session, U2Net, U2NetConfig, new_session, remove
from u2net_hub.config import Stage
from u2net_hub.inference import removal

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="always")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights, as a folder: what it finds does not matter here."""
    torch.manual_seed(0)
    return U2Net(CONFIG).save_pretrained(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def session(weights: Path) -> Session:
    return new_session(weights, device="cpu", engine="torch")


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 30, 3), np.uint8)


def png(picture: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def same(a: object, b: object) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


# ---- what goes in comes out ------------------------------------------------------------------------------


def test_the_cutout_is_that_of_the_pipeline(session: Session) -> None:
    photo = Image.fromarray(pixels())
    assert same(remove(photo, session=session), session(photo).cutout())


def test_bytes_become_the_bytes_of_a_png_file(session: Session) -> None:
    photo = Image.fromarray(pixels())
    data = remove(png(photo), session=session)
    assert isinstance(data, bytes)
    with Image.open(BytesIO(data)) as cutout:
        assert (cutout.format, cutout.mode) == ("PNG", "RGBA")
        assert same(cutout, session(photo).cutout())


def test_an_array_becomes_an_array_that_can_be_changed(session: Session) -> None:
    cutout = remove(pixels(), session=session)
    assert isinstance(cutout, np.ndarray)
    assert (cutout.shape, cutout.dtype) == ((24, 30, 4), np.uint8)
    cutout[0, 0] = 0


@pytest.mark.parametrize("kind", ["picture", "array"])
def test_bytes_are_returned_for_anything_on_request(session: Session, kind: str) -> None:
    data = Image.fromarray(pixels()) if kind == "picture" else pixels()
    assert remove(data, session=session, force_return_bytes=True) == remove(
        png(Image.fromarray(pixels())), session=session
    )


def test_a_picture_that_is_given_is_not_changed(session: Session) -> None:
    photo = Image.fromarray(pixels())
    remove(photo, session=session, putalpha=True, bgcolor=(1, 2, 3, 4))
    assert photo.mode == "RGB"
    assert same(photo, pixels())


@pytest.mark.parametrize("data", ["a.jpg", Path("a.jpg"), BytesIO(b"x"), None])
def test_other_data_are_refused_as_rembg_refuses_them(data: object) -> None:
    with pytest.raises(ValueError, match=r"expected bytes, a PIL image or an array; for a file"):
        remove(data)  # type: ignore[arg-type]


def test_bytes_that_are_no_picture_are_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="is not a picture"):
        remove(b"no picture at all", session=session)


def test_the_orientation_is_applied(session: Session) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(BytesIO(remove(png(Image.fromarray(pixels()), exif=exif), session=session))) as cutout:
        assert cutout.size == (24, 30)


# ---- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "edges"),
    [
        ({}, "sharp"),
        ({"alpha_matting": True}, "hair"),
        ({"edges": "soft"}, "soft"),
        ({"putalpha": True}, "soft"),
    ],
)
def test_arguments_choose_the_edges(session: Session, arguments: dict[str, object], edges: str) -> None:
    photo = Image.fromarray(pixels())
    cutout = remove(photo, session=session, **arguments)  # type: ignore[arg-type]
    assert same(cutout, session(photo).cutout(edges=edges))  # type: ignore[arg-type]


def test_arguments_that_ask_for_different_edges_are_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="edges='sharp' and alpha_matting=True ask for different edges"):
        remove(pixels(), session=session, edges="sharp", alpha_matting=True)


def test_the_mask_is_the_alpha_of_the_cutout(session: Session) -> None:
    mask = remove(pixels(), session=session, only_mask=True)
    assert same(mask, remove(pixels(), session=session)[..., 3])


def test_a_background_is_seen_through_the_cutout_and_has_its_own_alpha(session: Session) -> None:
    photo = Image.fromarray(pixels())
    cutout = session(photo).cutout()
    expected = Image.alpha_composite(Image.new("RGBA", cutout.size, (255, 0, 0, 128)), cutout)
    assert same(remove(photo, session=session, bgcolor=(255, 0, 0, 128)), expected)


@pytest.mark.parametrize("colour", [(1, 2, 3), (1, 2, 3, 256), (0.5, 0, 0, 1), "white", 4])
def test_a_background_that_is_no_colour_is_refused(session: Session, colour: object) -> None:
    with pytest.raises(ValueError, match="expected red, green, blue and alpha from 0 to 255"):
        remove(pixels(), session=session, bgcolor=colour)  # type: ignore[arg-type]


def test_a_mask_that_is_processed_is_hard(session: Session) -> None:
    mask = remove(pixels(), session=session, only_mask=True, post_process_mask=True, edges="soft")
    assert set(np.unique(mask)) == {0, 255}


def test_a_mask_can_be_cleaned(session: Session) -> None:
    cleanup = Cleanup(largest_part=True, grow=2)
    assert same(remove(pixels(), session=session, cleanup=cleanup), session(pixels()).cutout(cleanup=cleanup))


def test_soft_edges_lose_the_background_on_request(session: Session) -> None:
    plain, clean = (
        remove(pixels(), session=session, edges="soft", decontaminate=each) for each in (False, True)
    )
    assert same(plain[..., 3], clean[..., 3])
    assert same(plain[..., :3], pixels())
    assert not same(plain, clean)


@pytest.mark.parametrize("function", [remove, new_session])
def test_an_unknown_argument_is_named(function: object) -> None:
    with pytest.raises(TypeError, match=r"got the unknown argument 'aplha_matting'; beside those of rembg"):
        function(b"", aplha_matting=True)  # type: ignore[operator]


def test_vitmatte_is_refused_with_what_to_use() -> None:
    with pytest.raises(ValueError, match="alpha_matting=True is for hair"):
        remove(b"", vitmatte=True)


# ---- what is otherwise than in rembg, and how to end it --------------------------------------------------


def test_colours_are_kept_unless_they_are_multiplied(session: Session) -> None:
    kept = remove(pixels(), session=session, edges="soft")
    dark = remove(pixels(), session=session, edges="soft", premultiply=True)
    assert same(kept[..., :3], pixels())
    assert np.abs(dark[..., :3] - kept[..., :3] * (kept[..., 3:] / 255)).max() <= 0.51


def test_an_empty_scene_stays_empty_unless_maps_are_always_stretched(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = new_session(weights, device="cpu", engine="torch", minmax="auto")
    faint = np.linspace(0, 0.2, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
    monkeypatch.setattr(empty, "engine", lambda x, side_outputs=False: (faint,))
    assert not remove(pixels(), session=empty, edges="soft")[..., 3].any()
    assert remove(pixels(), session=empty, edges="soft", minmax="always")[..., 3].max() > 250
    assert empty.config.minmax == "auto"


def test_the_profile_is_kept(session: Session) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png(Image.fromarray(pixels()), icc_profile=profile)
    for arguments in ({}, {"bgcolor": (0, 0, 0, 255)}, {"decontaminate": True, "edges": "soft"}):
        with Image.open(BytesIO(remove(data, session=session, **arguments))) as cutout:  # type: ignore[arg-type]
            assert cutout.info["icc_profile"] == profile


def test_rembg_gives_the_same_picture_for_the_same_mask(session: Session) -> None:
    rembg = pytest.importorskip("rembg.bg")
    photo = Image.fromarray(pixels())
    expected = rembg.naive_cutout(photo, session.predict(photo)[0])
    assert same(remove(photo, session=session, edges="soft", minmax="always", premultiply=True), expected)


def test_arguments_have_rembgs_names_order_and_defaults() -> None:
    rembg = pytest.importorskip("rembg")
    ours, theirs = (inspect.signature(function).parameters for function in (remove, rembg.remove))
    named = [name for name, parameter in theirs.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert [name for name in ours if name in named] == named
    assert {name: ours[name].default for name in named} == {name: theirs[name].default for name in named}
    assert {name: p.kind for name, p in theirs.items()}.items() <= {
        n: p.kind for n, p in ours.items()
    }.items()
    ours, theirs = (inspect.signature(function).parameters for function in (new_session, rembg.new_session))
    shared = ["model_name", "args", "kwargs"]
    assert {n: ours[n].kind for n in shared} == {n: theirs[n].kind for n in shared}


# ---- sessions --------------------------------------------------------------------------------------------


def test_a_session_is_a_pipeline_with_rembgs_names(session: Session, weights: Path) -> None:
    assert isinstance(session, SaliencyPipeline)
    assert session.model_name == session.name() == str(weights)
    (mask,) = session.predict(Image.fromarray(pixels()))
    assert same(mask, session(pixels()).mask(None))


def test_several_classes_have_a_mask_each() -> None:
    torch.manual_seed(0)
    classes = CONFIG.replace(out_channels=3, activation="softmax")
    masks = Session(U2Net(classes), device="cpu", engine="torch").predict(Image.fromarray(pixels()))
    assert [mask.mode for mask in masks] == ["L", "L"]


def test_a_pipeline_is_a_session_too(weights: Path, session: Session) -> None:
    pipeline = SaliencyPipeline.from_pretrained(weights, device="cpu", engine="torch")
    assert same(remove(pixels(), session=pipeline), remove(pixels(), session=session))


def test_another_librarys_session_is_refused() -> None:
    with pytest.raises(ValueError, match=r"session is a object, expected what u2net_hub.new_session returns"):
        remove(pixels(), session=object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("providers", "device", "engine"),
    [
        (["CPUExecutionProvider"], "cpu", "auto"),
        (["CUDAExecutionProvider"], "cuda", "auto"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "auto", "auto"),
        (["CPUExecutionProvider", "CUDAExecutionProvider"], "cpu", "auto"),
        ([("CUDAExecutionProvider", {"device_id": 0})], "cuda", "auto"),
        (["OpenVINOExecutionProvider", "CPUExecutionProvider"], "cpu", "openvino"),
        ([], "auto", "auto"),
    ],
)
def test_providers_are_a_device_or_an_engine(providers: list[str], device: str, engine: str) -> None:
    assert removal._read_providers(providers, "auto", "auto") == (device, engine)


def test_unknown_providers_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown provider 'TPU'"):
        new_session(providers=["TPU"])
    with pytest.raises(ValueError, match="were both given"):
        new_session(providers=["CPUExecutionProvider"], device="cpu")
    with pytest.raises(ValueError, match="sess_opts is for rembg's ONNX Runtime"):
        new_session(sess_opts=object())  # type: ignore[arg-type]


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        new_session("no-such-model")


def test_calls_without_a_session_share_one(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    several = threading.Barrier(4)

    def load() -> Session:
        loads.append(1)
        return new_session(weights, device="cpu", engine="torch")

    def call(_: int) -> object:
        several.wait()
        return remove(pixels(), edges="soft")

    monkeypatch.setattr(removal, "new_session", load)
    monkeypatch.setattr(removal, "_default", [])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(4)))
    assert loads == [1]
    assert all(same(result, results[0]) for result in results)


def test_many_threads_each_get_their_own_photo(session: Session) -> None:
    def call(seed: int) -> object:
        return remove(pixels(seed), session=session, edges="soft")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(40)))
    for seed in (0, 17, 39):
        assert same(results[seed], call(seed))
        assert same(results[seed][..., :3], pixels(seed))  # type: ignore[index]
