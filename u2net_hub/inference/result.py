"""The result for one photo: maps, masks and cutouts, which are made on request."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from .. import imaging as im
from .backgrounds import read_background, render_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config import U2NetConfig
    from ..imaging import Cleanup, Edges, Photo
    from .backgrounds import Background


CUTOUT_EDGES: Edges = "sharp"
"""The edges of a cutout by default: the best on most photos, see docs/cutouts.md for the measurements."""


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
        self._mattes: dict[Edges, NDArray[np.uint8]] = {}
        self._cleaned: dict[tuple[float | None, Edges, Cleanup], NDArray[np.uint8]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the photo in pixels."""
        return self.photo.size

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """The network's map before min–max: float32 (h, w) in [0, 1], at the network's own size.

        Raises:
            ValueError: The map holds NaN, as damaged weights make it.
        """
        found = self._foreground(self._fused)
        if np.isnan(found).any():
            raise ValueError(
                f"{self.photo.name}: the network's map holds NaN; its weights are damaged, or too large for "
                "16 bit: try precision='exact', or train or download them again"
            )
        return found

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

    def mask(
        self, threshold: float | None = 0.5, *, edges: Edges = "soft", cleanup: Cleanup | None = None
    ) -> Image.Image:
        """Make the mask at the photo's size: mode L, 255 where the saliency is at least `threshold`, else 0.

        Args:
            threshold: A number from 0 to 1; None gives the saliency itself in 256 grey levels.
            edges: `"soft"` for the network's own map; `"sharp"` or `"hair"` for a matte, see `cutout`.
            cleanup: See `cutout`. With several classes, all of them together are the object.

        Returns:
            The mask; with several classes the labels as a palette picture (mode P), whatever the threshold
            and the edges.
        """
        if self.labels is not None:
            labels = im.clean_labels(self.labels, cleanup) if cleanup else self.labels
            mask = Image.fromarray(labels).convert("P")
            mask.putpalette(im.palette())
            return mask
        return Image.fromarray(self._matte(threshold, edges, cleanup))

    def alpha(
        self,
        threshold: float | None = None,
        *,
        edges: Edges = CUTOUT_EDGES,
        cleanup: Cleanup | None = None,
    ) -> Image.Image:
        """Make the cutout's alpha channel: the matte times the photo's own alpha, mode L.

        Args:
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
            edges: See `cutout`.
            cleanup: See `cutout`.
        """
        matte = Image.fromarray(self._matte(threshold, edges, cleanup))
        return matte if self.photo.alpha is None else ImageChops.multiply(matte, self.photo.alpha)

    def cutout(
        self,
        threshold: float | None = None,
        *,
        edges: Edges = CUTOUT_EDGES,
        clean_edges: bool = False,
        cleanup: Cleanup | None = None,
    ) -> Image.Image:
        """Make the background transparent: mode RGBA, with the photo's colours and ICC profile.

        Args:
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
            edges: `"sharp"` is for things with a clear outline, and `"hair"` for hair and fur. Both follow
                the photo's own edges at full size, and remove the background's colours from them; see
                `imaging.refine` and `imaging.foreground_colours`. `"soft"` is the network's map, with the
                photo's colours as they are.
            clean_edges: Deprecated. Removes the background's colours from soft edges too.
            cleanup: The steps that clean the matte, after the threshold if there is one: the largest part
                only, holes filled, the outline moved; see `Cleanup`.

        Raises:
            ValueError: `edges` is unknown, or the photo was read at reduced size.
        """
        colours = self._colours(threshold, edges, clean_edges, cleanup)
        picture = colours.copy() if colours is self.photo.rgb else colours
        picture.putalpha(self.alpha(threshold, edges=edges, cleanup=cleanup))
        return self._with_profile(picture)

    def over(
        self,
        background: Background,
        threshold: float | None = None,
        *,
        edges: Edges = CUTOUT_EDGES,
        clean_edges: bool = False,
        cleanup: Cleanup | None = None,
    ) -> Image.Image:
        """Place the cutout on another background: mode RGB.

        Args:
            background: A colour ("white", "#ff8800", (255, 136, 0)), "blur" for the photo's own background
                out of focus, or a picture (file, PIL image, array), scaled and cropped to the photo's size.
                A str that names no colour is the path of a file.
            threshold: A number from 0 to 1 for a hard edge; None for a soft edge.
            edges: See `cutout`.
            clean_edges: See `cutout`.
            cleanup: See `cutout`.

        Raises:
            ValueError: The background is none of those, or `edges` is unknown.
        """
        colours = self._colours(threshold, edges, clean_edges, cleanup)
        alpha = self.alpha(threshold, edges=edges, cleanup=cleanup)
        shown = self.alpha(edges="soft", cleanup=cleanup)
        behind = render_background(read_background(background), self.photo, shown)
        return self._with_profile(Image.composite(colours, behind, alpha))

    def bbox(
        self, threshold: float = 0.1, *, edges: Edges = "soft", cleanup: Cleanup | None = None
    ) -> tuple[int, int, int, int] | None:
        """Find the box around the object: (left, top, right, bottom) in pixels, for `Image.crop`.

        Args:
            threshold: The least visibility of a pixel in the box, from 0 to 1.
            edges: Those of the cutout that is cropped, see `cutout`.
            cleanup: That of the cutout that is cropped, see `cutout`.

        Returns:
            The box; None if no pixel is visible enough.
        """
        least = 255 * _checked(threshold)
        shown = np.asarray(self.alpha(edges=edges, cleanup=cleanup)) >= least
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        if not rows.size:
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        if maps.shape[0] > 1 or self.config.invert:
            return np.asarray(1 - maps[0], np.float32)
        return np.asarray(maps[0], np.float32)

    def _matte(
        self, threshold: float | None, edges: Edges, cleanup: Cleanup | None = None
    ) -> NDArray[np.uint8]:
        """Make the matte without the photo's own alpha: uint8 (H, W)."""
        if not cleanup:
            return self._raw_matte(threshold, edges)
        key = (threshold, edges, cleanup)
        kept = self._cleaned
        if key not in kept:
            # only the last one is kept: alpha, colours and box of a cutout share it
            kept = self._cleaned = {key: im.clean(self._raw_matte(threshold, edges), cleanup)}
        return kept[key]

    def _raw_matte(self, threshold: float | None, edges: Edges) -> NDArray[np.uint8]:
        if edges == "soft":
            if threshold is None:
                return im.to_grey(self._normalised, self.size)
            hard = self.saliency >= _checked(threshold)
        else:
            matte = self._refined(edges)
            if threshold is None:
                return matte
            hard = matte >= 255 * _checked(threshold)
        return np.where(hard, np.uint8(255), np.uint8(0))

    def _refined(self, edges: Edges) -> NDArray[np.uint8]:
        """Make the matte that follows the photo's edges; alpha and colours of a cutout share it."""
        if edges not in self._mattes:
            self._check_full_size()
            self._mattes[edges] = im.refine(self.photo.on((255, 255, 255)), self._normalised, edges)
        return self._mattes[edges]

    def _colours(
        self, threshold: float | None, edges: Edges, clean_edges: bool, cleanup: Cleanup | None
    ) -> Image.Image:
        """Make the colours of the cutout: mode RGB, at the photo's size."""
        self._check_full_size()
        if clean_edges:
            warnings.warn(
                "clean_edges is deprecated: all edges but 'soft' have clean colours",
                DeprecationWarning,
                stacklevel=3,
            )
        if edges == "soft" and not clean_edges:
            return self.photo.rgb
        # only the network's matte: where the photo's own alpha is soft, its colours are clean already
        return im.foreground_colours(self.photo.rgb, Image.fromarray(self._matte(threshold, edges, cleanup)))

    def _check_full_size(self) -> None:
        if self.photo.full_size is not None:
            raise ValueError(
                f"{self.photo.name} was read at reduced size with map_only; a cutout needs all its pixels"
            )

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
