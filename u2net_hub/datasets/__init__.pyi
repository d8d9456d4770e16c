from .checks import (
    check_class_masks as check_class_masks,
    check_dataset as check_dataset,
    check_saliency_masks as check_saliency_masks,
)
from .dataset import SaliencyDataset as SaliencyDataset
from .masks import (
    FOREGROUND as FOREGROUND,
    IGNORED as IGNORED,
    read_image as read_image,
    read_mask as read_mask,
)
from .mixing import (
    Share as Share,
    join as join,
    parse_share as parse_share,
    take as take,
    without_copies as without_copies,
)
from .pairing import (
    find_pairs as find_pairs,
    pictures_by_stem as pictures_by_stem,
)
from .report import (
    DEFECTS as DEFECTS,
    DataReport as DataReport,
    Finding as Finding,
)
