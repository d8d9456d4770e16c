"""Writes docs/edges.webp: photos that may be shown, cut out with each kind of edges, at 100 %.

Run it from the root of the checkout.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from u2net_hub import SaliencyPipeline
from u2net_hub.imaging import Entry, draw_sheet

# Where to look at each photo: the centre of a square, as fractions of width and height
PLACES = {"astronaut": (0.36, 0.2), "chelsea": (0.72, 0.25), "coffee": (0.75, 0.7)}
SIDE = 200
GROUND = "#e83e8c"


def main() -> None:
    pipeline = SaliencyPipeline.from_pretrained("u2netp", device="cpu")
    entries = []
    for name, (x, y) in PLACES.items():
        result = pipeline(f"examples/{name}.jpg")
        pictures = [
            result.photo.rgb,
            *(result.over(GROUND, edges=edges) for edges in ("soft", "sharp", "hair")),
        ]
        left, top = (
            round(part * length - SIDE / 2) for part, length in zip((x, y), pictures[0].size, strict=True)
        )
        left, top = (
            max(0, min(at, length - SIDE)) for at, length in zip((left, top), pictures[0].size, strict=True)
        )
        crops = [picture.crop((left, top, left + SIDE, top + SIDE)) for picture in pictures]
        entries.append(Entry(crops, f"{name}: photo, soft, sharp, hair"))
    sheet: Image.Image = draw_sheet(entries, columns=1, tile=SIDE, title="")
    sheet.save(Path("docs/edges.webp"), quality=85)


if __name__ == "__main__":
    main()
