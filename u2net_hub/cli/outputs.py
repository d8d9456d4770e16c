"""The rule of every verb: existing files are not replaced without --overwrite."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check that no output exists yet, before any work starts.

    Args:
        paths: The files that the verb will write.
        overwrite: Whether they may be replaced.

    Raises:
        FileExistsError: An output exists, and may not be replaced.
    """
    for path in paths:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(
                f"{path} exists already; choose another --out, or replace it with --overwrite"
            )
