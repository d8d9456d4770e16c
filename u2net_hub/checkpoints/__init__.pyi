from .batch_norm import (
    Moments as Moments,
    is_folded as is_folded,
    normalised_convolutions as normalised_convolutions,
    unfold as unfold,
)
from .onnx_metadata import metadata_config as metadata_config
from .onnx_reader import check_onnx as check_onnx
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
