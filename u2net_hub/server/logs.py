"""One line of JSON for each request, without photos, file names and keys."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

logger = logging.getLogger("u2net_hub.server.requests")


def open_log() -> None:
    """Write the lines to standard error, unless the caller's program has set up this logger itself."""
    if not logger.handlers and logger.level == logging.NOTSET:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def log_request(facts: dict[str, object]) -> None:
    """Log one request.

    Args:
        facts: Method, route, status, seconds and what else is known of the request.
    """
    if logger.isEnabledFor(logging.INFO):
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        logger.info(json.dumps({"time": now, **facts}))
