"""Run the server until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..hub import resolve
from ..inference import tune_malloc
from .settings import Settings

if TYPE_CHECKING:
    import socket
    from types import FrameType


def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 7000,
    workers: int = 1,
    on_ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Load the models, open the port, and serve until the process is interrupted or terminated.

    SIGTERM closes the port, finishes the requests that run, and ends the process with exit code 0.

    Args:
        settings: The settings.
        host: The address to listen on.
        port: The port to listen on; 0 for any free one.
        workers: The number of processes. With several, each loads the models, and the port opens at once.
        on_ready: A function that is called with the server's address when the port is open.

    Raises:
        ImportError: The extra `serve` is not installed.
        ValueError: A setting or a source is invalid.
        OSError: A source cannot be read.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as e:
        raise ImportError(
            f"the server needs {e.name}; install it with: pip install 'u2net-hub[serve]'"
        ) from e
    from .connections import TimedProtocol
    from .urls import Fetcher

    # With several workers these would fail in each of them, and uvicorn would start them again and again.
    settings.read_keys()
    Fetcher(settings.allow_urls, settings.max_bytes).close()
    if workers > 1:
        for source in settings.models:
            resolve(source, allow_pickle=settings.allow_pickle)

    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "access_log": False,  # the server writes its own
        "log_config": None,
        "server_header": False,
        "timeout_graceful_shutdown": int(settings.timeout) + 5,
        "http": TimedProtocol,
        "ws": "none",
    }
    signal.signal(signal.SIGTERM, _stop)
    tune_malloc()
    if workers > 1:
        os.environ.update(settings.to_environment())
        uvicorn.run("u2net_hub.server:create_app", factory=True, workers=workers, **options)
        return
    from .app import create_app

    config = uvicorn.Config(create_app(settings), **options)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                name, number = self.servers[0].sockets[0].getsockname()[:2]
                on_ready(f"http://{f'[{name}]' if ':' in name else name}:{number}")

    Server(config).run()


def _stop(number: int, frame: FrameType | None) -> None:
    """End the process; uvicorn calls this after it has finished what ran."""
    sys.exit(0)
