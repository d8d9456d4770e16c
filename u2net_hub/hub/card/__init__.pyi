from .markdown import last_parts as last_parts
from .render import (
    PICTURE_NAME as PICTURE_NAME,
    render_card as render_card,
    results_of as results_of,
    validate_card as validate_card,
)
from .sections import Weights as Weights
