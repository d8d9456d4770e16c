"""The result for one photo: maps, masks and cutouts, which are made on request."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .. import imaging as im
from .backgrounds import read_background, render_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config import U2NetConfig
    from ..imaging import Photo
    from .backgrounds import Background


class SaliencyResult:
    """The result for one photo. Its maps and pictures are made on request.

    Args:
        photo: The photo, as `imaging.load` returns it.
        config: The config of the network that made the maps.
        fused: The network's fused map after the activation, float32 (out, h, w).
        sides: The network's side outputs in the same form, fine to coarse.
    """

    def __init__(
        self, photo: Photo, config: U2NetConfig, fused: NDArray[np.float32], *sides: NDArray[np.float32]
    ) -> None:
        self.photo = photo
        self.config = config
        self._fused = fused
        self._sides = sides

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the photo in pixels."""
        return self.photo.size

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """The network's map before min–max: float32 (h, w) in [0, 1], at the network's own size."""
        return self._foreground(self._fused)

    @cached_property
    def confidence(self) -> float:
        """The network's confidence that there is a salient object, in [0, 1]; see `imaging.confidence`."""
        return im.confidence(self.probability)

    @property
    def found(self) -> bool:
        """Whether there is a salient object; if not, `minmax="auto"` leaves the map empty."""
        return self.confidence >= im.FOUND_FROM

    @cached_property
    def saliency(self) -> NDArray[np.float32]:
        """The saliency map: float32 (H, W) in [0, 1], at the photo's size.

        With several classes it is the probability of not being background (class 0), without min–max.
        """
        return im.resize(self._normalised, self.size)

    @cached_property
    def _normalised(self) -> NDArray[np.float32]:
        """The saliency map at the network's own size."""
        return im.normalise(self.probability, "never" if self._fused.shape[0] > 1 else self.config.minmax)

    @cached_property
    def side_outputs(self) -> tuple[NDArray[np.float32], ...] | None:
        """The six side outputs, fine to coarse, without min–max: float32 (H, W) each; None if not kept."""
        if not self._sides:
            return None
        return tuple(im.resize(self._foreground(side), self.size) for side in self._sides)

    @cached_property
    def labels(self) -> NDArray[np.uint8] | None:
        """The most likely class of each pixel: uint8 (H, W); None if the network has one output."""
        if self._fused.shape[0] == 1:
            return None
        return im.most_likely(self._fused, self.size)

    def for_class(self, label: int | str) -> SaliencyResult:
        """Return the result for one class, with the probability of this class as the saliency.

        Args:
            label: The number of the class, or its name in the config.

        Raises:
            ValueError: There is no such class.
        """
        index = class_index(self.config, label)
        config = self.config.replace(out_channels=1, activation="sigmoid", labels=None, minmax="never")
        return SaliencyResult(
            self.photo, config, *[each[index : index + 1] for each in (self._fused, *self._sides)]
        )

    def mask(self, threshold: float | None = 0.5) -> Image.Image:
        """Make the mask at the photo's size: mode L, 255 where the saliency is at least `threshold`, else 0.

        Args:
            threshold: A number from 0 to 1; None gives the saliency itself in 256 grey levels.

        Returns:
            The mask; with several classes the labels as a palette picture (mode P), whatever the threshold.
        """
        if self.labels is not None:
            mask = Image.fromarray(self.labels).convert("P")
            mask.putpalette(im.palette())
            return mask
        return Image.fromarray(self._grey_matte(threshold))

    def alpha(self, threshold: float | None = None) -> Image.Image:
        """Make the cutout's alpha channel: the mask times the photo's own alpha, mode L.

        Args:
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
        """
        if self.photo.alpha is None:
            return Image.fromarray(self._grey_matte(threshold))
        return Image.fromarray(_to_uint8(self._visible(threshold)))

    def cutout(self, threshold: float | None = None, *, clean_edges: bool = False) -> Image.Image:
        """Make the photo's background transparent: mode RGBA, with the photo's colours and ICC profile.

        Args:
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
            clean_edges: Whether to remove the background's colours from the edge, see `imaging.clean_edges`.
        """
        picture = self._colours(threshold, clean_edges).copy()
        picture.putalpha(self.alpha(threshold))
        return self._with_profile(picture)

    def over(
        self, background: Background, threshold: float | None = None, *, clean_edges: bool = False
    ) -> Image.Image:
        """Place the cutout on another background: mode RGB.

        Args:
            background: A colour ("white", "#ff8800", (255, 136, 0)), "blur" for the photo's own background
                out of focus, or a picture (file, PIL image, array), scaled and cropped to the photo's size.
                A str that names no colour is the path of a file.
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
            clean_edges: Whether to remove the background's colours from the edge, see `imaging.clean_edges`.

        Raises:
            ValueError: The background is none of those.
        """
        colours = self._colours(threshold, clean_edges)
        behind = render_background(read_background(background), self.photo, self.alpha())
        return self._with_profile(Image.composite(colours, behind, self.alpha(threshold)))

    def bbox(self, threshold: float = 0.1) -> tuple[int, int, int, int] | None:
        """Find the box around the object: (left, top, right, bottom) in pixels, for `Image.crop`.

        Args:
            threshold: The least visibility of a pixel in the box, from 0 to 1.

        Returns:
            The box; None if no pixel is visible enough.
        """
        shown = self._visible(None) >= _checked(threshold)
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        if not rows.size:
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        if maps.shape[0] > 1 or self.config.invert:
            return np.asarray(1 - maps[0], np.float32)
        return np.asarray(maps[0], np.float32)

    def _matte(self, threshold: float | None) -> NDArray[np.float32]:
        if threshold is None:
            return self.saliency
        hard = self.saliency >= _checked(threshold)
        return np.asarray(hard, np.float32)

    def _grey_matte(self, threshold: float | None) -> NDArray[np.uint8]:
        """Make the matte in grey levels: uint8 (H, W)."""
        if threshold is None:
            return im.to_grey(self._normalised, self.size)
        hard = self.saliency >= _checked(threshold)
        return np.where(hard, np.uint8(255), np.uint8(0))

    def _visible(self, threshold: float | None) -> NDArray[np.float32]:
        matte = self._matte(threshold)
        if self.photo.alpha is None:
            return matte
        return np.multiply(matte, np.asarray(self.photo.alpha, np.float32) / 255, dtype=np.float32)

    def _colours(self, threshold: float | None, clean_edges: bool) -> Image.Image:
        if self.photo.full_size is not None:
            raise ValueError(
                f"{self.photo.name} was read at reduced size with map_only; a cutout needs all its pixels"
            )
        if not clean_edges:
            return self.photo.rgb
        # Use only the network's matte: where the photo's own alpha is soft, its colours are clean already.
        return im.clean_edges(self.photo.rgb, Image.fromarray(self._grey_matte(threshold)))

    def _with_profile(self, picture: Image.Image) -> Image.Image:
        # Only the profile is kept; EXIF with its GPS position and a palette's transparency are dropped.
        picture.info = {"icc_profile": self.photo.icc_profile} if self.photo.icc_profile else {}
        return picture


def class_index(config: U2NetConfig, label: int | str) -> int:
    """Find the channel of a class.

    Raises:
        ValueError: The network has no such class, or only one output.
    """
    n, names = config.out_channels, list(config.labels or ())
    if n == 1:
        raise ValueError(f"class {label!r} was asked for, but the network has one output")
    index = names.index(label) if label in names else int(label) if str(label).isdecimal() else n
    if index >= n:
        named = f" or one of {names}" if names else ""
        raise ValueError(f"unknown class {label!r}, expected 0 to {n - 1}{named}")
    return index


def _checked(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}, expected 0 to 1")
    return threshold


def _to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled = values * 255
    return np.rint(scaled, out=scaled).astype(np.uint8)
