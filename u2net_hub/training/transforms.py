"""What augmentation does to a batch of photos uint8 (B, H, W, 3) and masks uint8 (B, H, W).

The random numbers come from the caller, so a batch depends on them alone. Geometry moves photo and mask
alike. Beyond its edges a picture goes on as its mirror image, so nothing unlabelled comes into view.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Aspect ratios of enlarged areas (Szegedy et al., arXiv 1409.4842, section 6)
_RATIOS = (3 / 4, 4 / 3)
# From this opacity on a pixel shows hardly any background.
_SOLID = 0.95
# A weaker blur changes no pixel.
_LEAST_BLUR = 0.1


def areas(corners: Tensor, crop: int, load: int, least: float | None, draws: Tensor) -> Tensor:
    """Choose the area of each picture that its crop shows: (B, 4), float32.

    An area is its top, left, height and width in pixels.

    Args:
        corners: Rows and columns of the corners of crops that are not enlarged, (B, 2).
        crop: The side of such crops.
        load: The side of the pictures.
        least: The smallest part of the picture that an area takes; None does not enlarge crops.
        draws: Random numbers in [0, 1), (B, 4): size, aspect and place of the areas.
    """
    if least is None:
        return torch.cat([corners.float(), torch.full_like(corners, crop).float()], 1)
    size, aspect, down, right = draws.unbind(1)
    part = least + (1 - least) * size
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratio = torch.exp(low + (high - low) * aspect)
    height, width = ((part / ratio).sqrt().clamp(max=1) * load, (part * ratio).sqrt().clamp(max=1) * load)
    return torch.stack([down * (load - height), right * (load - width), height, width], 1)


def warp(
    images: Tensor,
    masks: Tensor,
    crop: int,
    areas: Tensor,
    angles: Tensor,
    mirrored: Tensor,
    *,
    classes: bool = False,
) -> tuple[Tensor, Tensor]:
    """Show an area of each picture, turned and mirrored, at the size `crop`, bilinear; class numbers nearest.

    Args:
        images: Photos, all square.
        masks: Their masks.
        crop: The side of the result in pixels.
        areas: Top, left, height and width of each area in pixels, (B, 4).
        angles: The angle by which each picture is turned clockwise, in degrees, (B,).
        mirrored: Which pictures are mirrored left to right, bool (B,).
        classes: Whether masks hold class numbers.
    """
    side = images.shape[1]
    top, left, height, width = areas.float().unbind(1)
    turn = -torch.deg2rad(angles.float())
    cos, sin = turn.cos(), turn.sin()
    across = torch.where(mirrored, -width, width) / side
    down = height / side
    x, y = (2 * left + width) / side - 1, (2 * top + height) / side - 1
    rows = torch.stack([cos * across, -sin * down, x, sin * across, cos * down, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, [len(images), 1, crop, crop], align_corners=False)

    def sample(pictures: Tensor, mode: str) -> Tensor:
        shown = F.grid_sample(pictures.float(), grid, mode, padding_mode="reflection", align_corners=False)
        return shown.round().clamp(0, 255).to(torch.uint8)

    photos = sample(images.permute(0, 3, 1, 2), "bilinear").permute(0, 2, 3, 1).contiguous()
    return photos, sample(masks[:, None], "nearest" if classes else "bilinear")[:, 0]


def opacity(masks: Tensor, *, classes: bool = False) -> Tensor:
    """The opacity of what is not background, float32 (B, 1, H, W) in [0, 1]; classes are opaque."""
    return ((masks > 0) if classes else masks / 255)[:, None].float()


def exchange_backgrounds(images: Tensor, alpha: Tensor, others: Tensor, others_alpha: Tensor) -> Tensor:
    """Put the object of each photo on the background of another photo: uint8 (B, H, W, 3) each -> the same.

    The object's colours are freed from its old background (Forte 2021, "Approximate Fast Foreground Colour
    Estimation"). The place of the other photo's own object is filled with the colours around it, so no object
    is shown that the mask does not hold. A photo without an object stays as it is.

    Args:
        images: The photos whose objects are kept.
        alpha: The opacity of their objects, float32 (B, 1, H, W).
        others: The photos that give the backgrounds.
        others_alpha: The opacity of the objects on these.
    """
    seen, other = (t.permute(0, 3, 1, 2).float() for t in (images, others))
    fore = fill(seen, (alpha / alpha.amax((1, 2, 3), keepdim=True).clamp_min(1e-3) >= _SOLID).float())
    back = fill(seen, (alpha <= 1 - _SOLID).float())
    fore = (fore + alpha * (seen - alpha * fore - (1 - alpha) * back)).clamp(0, 255)
    # the rim of the other object shines into the pixels around it
    covered = F.max_pool2d((others_alpha > 1 - _SOLID).float(), 5, stride=1, padding=2)
    new = alpha * fore + (1 - alpha) * fill(other, 1 - covered)
    new = torch.where(alpha.amax((1, 2, 3), keepdim=True) > 0, new, seen)
    return new.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def fill(pictures: Tensor, known: Tensor) -> Tensor:
    """Fill pixels with the colours of known ones around them, smoothly, by an image pyramid.

    This is the pull-push algorithm of Gortler et al. (1996, "The Lumigraph").

    Args:
        pictures: Colours, float32 (B, C, H, W).
        known: 1 where the colour is known, 0 where it is filled, float32 (B, 1, H, W). A picture of which
            nothing is known stays as it is.
    """
    known = torch.where(known.amax((1, 2, 3), keepdim=True) > 0, known, 1)
    levels = [(pictures * known, known)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(tuple(F.avg_pool2d(t, 2, ceil_mode=True) for t in levels[-1]))  # type: ignore[arg-type]
    total, weight = levels.pop()
    filled = total / weight.clamp_min(1e-8)
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, weight.shape[2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, total / weight.clamp_min(1e-8), coarse)
    return filled


def change_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of each photo by a part of the colour circle, (B,) from -0.5 to 0.5."""
    from torchvision.transforms.v2.functional import adjust_hue  # type: ignore[import-untyped]

    photos = images.permute(0, 3, 1, 2)
    turned = [adjust_hue(photo, float(shift)) for photo, shift in zip(photos, shifts, strict=True)]
    return torch.stack(turned).permute(0, 2, 3, 1).contiguous()


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each photo by a Gaussian with a standard deviation in pixels, (B,)."""
    from torchvision.transforms.v2.functional import gaussian_blur

    def blurred(photo: Tensor, sigma: float) -> Tensor:
        if sigma < _LEAST_BLUR:
            return photo
        # reflection at the edges takes at most the photo's side
        reach = min(math.ceil(3 * sigma), min(photo.shape[1:]) - 1)
        result: Tensor = gaussian_blur(photo, [2 * reach + 1] * 2, [sigma] * 2)
        return result

    photos = images.permute(0, 3, 1, 2)
    made = [blurred(photo, float(sigma)) for photo, sigma in zip(photos, sigmas, strict=True)]
    return torch.stack(made).permute(0, 2, 3, 1).contiguous()


def compress(images: Tensor, qualities: Tensor) -> Tensor:
    """Compress each photo as JPEG with a quality, (B,) from 1 to 100. This runs on the CPU."""
    made = []
    for photo, quality in zip(images.cpu().numpy(), qualities.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=int(quality))
        made.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(made)).to(images.device)
