from .cleaning import (
    clean as clean,
    clean_labels as clean_labels,
)
from .cleanup import Cleanup as Cleanup
from .compositing import (
    blur_background as blur_background,
    parse_colour as parse_colour,
)
from .contact_sheet import (
    Entry as Entry,
    draw_sheet as draw_sheet,
)
from .decode import (
    IMAGE_SUFFIXES as IMAGE_SUFFIXES,
    ImageSource as ImageSource,
    Photo as Photo,
    load as load,
    peek_size as peek_size,
)
from .encoding import (
    FORMAT_OF_SUFFIX as FORMAT_OF_SUFFIX,
    WRITTEN as WRITTEN,
    Format as Format,
    encode as encode,
)
from .foreground import foreground_colours as foreground_colours
from .matting import refine as refine
from .transforms import (
    FOUND_FROM as FOUND_FROM,
    Edges as Edges,
    check_channels as check_channels,
    confidence as confidence,
    most_likely as most_likely,
    normalise as normalise,
    palette as palette,
    postprocess as postprocess,
    preprocess as preprocess,
    resize as resize,
    to_grey as to_grey,
)
