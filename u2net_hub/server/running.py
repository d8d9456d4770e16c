"""Run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .settings import Settings

if TYPE_CHECKING:
    from types import FrameType

# A connection on which no whole head of a request arrives within these seconds is closed.
_HEAD_SECONDS = 10
# So long may bytes that were sent remain unread by the client.
_SILENCE_SECONDS = 30


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
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "access_log": False,  # the server writes its own
        "log_config": None,
        "server_header": False,
        "timeout_graceful_shutdown": int(settings.timeout) + 5,
        "http": _timed_protocol(),
        "ws": "none",
    }
    signal.signal(signal.SIGTERM, _stop)
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


def _limit_silence(connection: socket.socket | None) -> None:
    """Let the system end a connection whose client does not take what was sent; only Linux can."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if (
        option is not None
        and connection is not None
        and connection.family != getattr(socket, "AF_UNIX", None)
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, 1000 * _SILENCE_SECONDS)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the process; uvicorn calls this after it has finished what ran."""
    sys.exit(0)


def _timed_protocol() -> type[asyncio.Protocol]:
    """Make uvicorn's HTTP protocol close connections on which the head of a request does not arrive."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class TimedProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            _limit_silence(transport.get_extra_info("socket"))
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._has_request():
                self._stop_waiting()
            elif self._timer is None:
                self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _wait_for_head(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(_HEAD_SECONDS, self._end)

        def _end(self) -> None:
            self._timer = None
            if not self._has_request():
                self.transport.abort()

        def _has_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

    return TimedProtocol
