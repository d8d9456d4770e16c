from .app import (
    launch as launch,
    serve as serve,
)
from .space import (
    Hardware as Hardware,
    push_space as push_space,
    space_files as space_files,
)
