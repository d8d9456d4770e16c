from .batch_norm import (
    Moments as Moments,
    is_folded as is_folded,
    normalised_convolutions as normalised_convolutions,
    unfold as unfold,
)
from .names import official_names as official_names
from .onnx_cost import check_onnx_cost as check_onnx_cost
from .onnx_files import onnx_bytes as onnx_bytes
from .onnx_metadata import (
    metadata_config as metadata_config,
    read_onnx_config as read_onnx_config,
)
from .onnx_reader import check_onnx as check_onnx
from .parts import (
    INDEX as INDEX,
    PICKLES as PICKLES,
    files_beside as files_beside,
)
from .printable import printable_text as printable_text
from .readers import (
    Checkpoint as Checkpoint,
    read_checkpoint as read_checkpoint,
)
from .topology import (
    Conv as Conv,
    Folded as Folded,
    check_shapes as check_shapes,
    count_parameters as count_parameters,
    fold as fold,
    official_shapes as official_shapes,
    walk as walk,
)
