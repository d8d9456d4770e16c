"""Connections that are closed when a client is silent for too long, where uvicorn would wait forever."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

# A connection on which no whole head of a request arrives within these seconds is closed.
_HEAD_SECONDS = 10
# So long may bytes that were sent remain unread by the client.
_SILENCE_SECONDS = 30


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which closes connections on which no head of a request arrives.

    It is always that of h11, which limits the size of a head; that of httptools reads heads of any size.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the head of a request."""
        super().connection_made(transport)
        _limit_silence(transport.get_extra_info("socket"))
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Wait no longer when the head is complete; wait again for that of the next request."""
        super().data_received(data)
        if self._has_request():
            self._stop_waiting()
        elif self._timer is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_HEAD_SECONDS, self._end)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        if not self._has_request():
            self.transport.abort()

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


def _limit_silence(connection: socket.socket | None) -> None:
    """Let the system end a connection whose client does not take what was sent; only Linux can."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if (
        option is not None
        and connection is not None
        and connection.family != getattr(socket, "AF_UNIX", None)
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, 1000 * _SILENCE_SECONDS)
