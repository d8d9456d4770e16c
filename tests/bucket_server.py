"""A bucket on loopback, by moto's server, which can be busy or deny access on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{0}</Code><Message>{0}</Message></Error>'


class _QuietHandler(WSGIRequestHandler):
    def log(self, *args: object) -> None:
        pass


class BucketServer:
    """S3 over HTTP. Buckets are filled and read by Python, without requests."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.busy_every = 0
        """Each n-th request is answered with 503 SlowDown; 0 for none."""
        self.denies = False
        """Whether every request is answered as one with wrong credentials."""
        self.requests = 0
        self.refused = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def _backend(self) -> Any:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def make_bucket(self, name: str) -> None:
        self._backend.create_bucket(name, "us-east-1")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._backend.put_object(bucket, key, content)

    def contents(self, bucket: str) -> dict[str, bytes]:
        return {key: item.value for key, item in self._backend.buckets[bucket].keys.items()}

    def _answer(
        self, environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        self.requests += 1
        if self.denies:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [_ERROR.format("InvalidAccessKeyId").encode()]
        if self.busy_every and self.requests % self.busy_every == 0:
            self.refused += 1
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [_ERROR.format("SlowDown").encode()]
        answer: Iterable[bytes] = self._app(environ, start)
        return answer
