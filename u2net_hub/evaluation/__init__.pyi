from .metrics import (
    FastScores as FastScores,
    confusion as confusion,
    iou_per_class as iou_per_class,
    score_image as score_image,
    summarise as summarise,
)
from .plots import (
    draw_plots as draw_plots,
    plot_curves as plot_curves,
)
from .published import published_scores as published_scores
from .records import read_record as read_record
from .results import (
    COLUMNS as COLUMNS,
    DatasetScores as DatasetScores,
    Results as Results,
    Speed as Speed,
    Training as Training,
)
from .scoring import (
    evaluate as evaluate,
    evaluate_maps as evaluate_maps,
)
from .tables import score_table as score_table
