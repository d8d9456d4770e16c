"""Fixtures that several test files need."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the oracles and data sets, which lies beside the checkout in development and CI."""
    if not SHARED.is_dir():
        pytest.skip(f"the oracles are not here: {SHARED}")
    return SHARED
