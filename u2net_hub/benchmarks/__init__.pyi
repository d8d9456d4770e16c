from .results import (
    Benchmark as Benchmark,
    check_free as check_free,
)
from .run import benchmark_engines as benchmark_engines
