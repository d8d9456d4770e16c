from .command import (
    app as app,
    main as main,
)
