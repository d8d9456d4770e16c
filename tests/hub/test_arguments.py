"""Arguments that people know from other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from u2net_hub import U2Net
from u2net_hub.hub import arguments

Tiny = Callable[[int], U2Net]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return tiny(0).save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["float16", "torch.float16", torch.float16])
def test_the_network_comes_in_the_data_type_that_is_asked_for(name: str, dtype: object, folder: Path) -> None:
    network = U2Net.from_pretrained(folder, **{name: dtype})  # type: ignore[arg-type]
    assert {p.dtype for p in network.parameters()} == {torch.float16}
    assert not network.training


def test_two_data_types_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="mean the same; give one"):
        U2Net.from_pretrained(folder, dtype="float16", torch_dtype="float32")


def test_the_network_comes_on_the_device_that_is_asked_for(folder: Path) -> None:
    network = U2Net.from_pretrained(folder, device="meta")
    assert {p.device.type for p in network.parameters()} == {"meta"}


@pytest.mark.parametrize("device", ["gpu", "auto"])
def test_a_device_that_torch_does_not_know_is_refused(device: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="expected cpu, cuda, cuda:1 or mps"):
        U2Net.from_pretrained(folder, device=device)


def test_a_device_that_is_not_here_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"device 'cuda:1' was asked for.*use device='cpu'"):
        U2Net.from_pretrained(folder, device="cuda:1")


def test_weights_are_never_left_at_random(folder: Path) -> None:
    with pytest.raises(ValueError, match="strict=False would leave weights at random"):
        U2Net.from_pretrained(folder, strict=False)


@pytest.mark.parametrize("name", arguments.LOADING)
def test_what_loading_does_otherwise_is_told(name: str, folder: Path) -> None:
    with pytest.raises(TypeError) as caught:
        U2Net.from_pretrained(folder, **{name: "x"})  # type: ignore[arg-type]
    assert f"'{name}' ({arguments.LOADING[name]})" in str(caught.value)


@pytest.mark.parametrize("name", arguments.SAVING)
def test_what_saving_does_otherwise_is_told(name: str, tiny: Tiny, tmp_path: Path) -> None:
    for save in (tiny(0).save_pretrained, tiny(0).push_to_hub):
        with pytest.raises(TypeError) as caught:
            save(str(tmp_path / "none"), **{name: "x"})  # type: ignore[arg-type]
        assert f"'{name}' ({arguments.SAVING[name]})" in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_an_unknown_argument_is_an_error_as_ever(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"from_pretrained.* has no argument 'colour'"):
        U2Net.from_pretrained(folder, colour="red")


def test_every_remedy_that_names_an_argument_is_true() -> None:
    import inspect

    loading = inspect.signature(U2Net.from_pretrained).parameters
    for remedy in arguments.LOADING.values():
        named = remedy.partition("use ")[2].partition("=")[0]
        assert "=" not in remedy or not named.isidentifier() or named in loading, remedy
