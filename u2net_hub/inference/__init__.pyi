from .folders import (
    FileReport as FileReport,
    Summary as Summary,
    run_files as run_files,
)
from .pipeline import SaliencyPipeline as SaliencyPipeline
from .result import SaliencyResult as SaliencyResult
