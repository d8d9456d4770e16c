"""Writes a sheet to look at: photos cut out with each kind of edges and by rembg, at 100 %, on two grounds.

Run it from the root of the checkout, with rembg installed. Name each photo and the centre of the square to
look at as fractions of its width and height:

    python model_cards/edges/look.py look.png examples/chelsea.jpg,0.7,0.25 ~/photos/bicycle.jpg,0.3,0.6
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

from u2net_hub import SaliencyPipeline, export
from u2net_hub.imaging import Entry, draw_sheet

GROUNDS = ("#ffffff", "#e83e8c")
COLUMNS = ("photo", "soft", "sharp", "hair", "rembg", "rembg -a")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="the file of the sheet")
    parser.add_argument("photos", nargs="+", metavar="PHOTO,X,Y")
    parser.add_argument("--model", default="u2netp", help="the weights, also those of rembg")
    parser.add_argument("--side", type=int, default=220, help="the side of the squares in pixels")
    asked = parser.parse_args()
    from rembg import new_session, remove

    pipeline = SaliencyPipeline.from_pretrained(asked.model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(export(asked.model, Path(folder, "u2netp.onnx")))
        session = new_session("u2net_custom", model_path=str(file))
        entries = []
        for words in asked.photos:
            path, x, y = words.rsplit(",", 2)
            result = pipeline(path)
            photo = result.photo.rgb
            cutouts = [remove(photo, session=session, alpha_matting=matting) for matting in (False, True)]
            for ground in GROUNDS:
                pictures = [photo, *(result.over(ground, edges=each) for each in ("soft", "sharp", "hair"))]
                pictures += [on(ground, cutout) for cutout in cutouts]
                crops = [square(picture, float(x), float(y), asked.side) for picture in pictures]
                entries.append(Entry(crops, f"{Path(path).stem}: {', '.join(COLUMNS)}"))
            print(path, file=sys.stderr)
    draw_sheet(entries, columns=1, tile=asked.side, title="").save(asked.out)


def on(ground: str, cutout: Image.Image) -> Image.Image:
    """The cutout on a ground of one colour."""
    below = Image.new("RGBA", cutout.size, ground)
    return Image.alpha_composite(below, cutout.convert("RGBA")).convert("RGB")


def square(picture: Image.Image, x: float, y: float, side: int) -> Image.Image:
    """The part of a picture around a place, given as fractions of its width and height."""
    left, top = (
        max(0, min(round(part * length - side / 2), length - side))
        for part, length in zip((x, y), picture.size, strict=True)
    )
    return picture.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    main()
