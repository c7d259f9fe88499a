"""A real S3 server on loopback, moto's, with the faults of a network."""

import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import obstore
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from obstore.store import from_url
from werkzeug.serving import make_server

BUCKET = "s3://bucket"
_CREDENTIALS = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"

Start = Callable[..., Any]


class Request(NamedTuple):
    """A request that the server received."""

    method: str
    path: str
    bytes: tuple[int, int] | None
    """First byte and end of the range that it asked for."""


class ObjectStore:
    """The server. ``faults`` are those of the next reads, one each."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[Request] = []
        self.faults: list[str] = []
        """``503``, ``429``, ``truncated`` or ``reset``."""
        self.refuses = False
        """Whether no request is allowed."""
        self.seconds = 0.0
        """Latency of each request."""
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which clients find the server."""
        key = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        return key | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.endpoint}

    def start(self) -> None:
        """Start the server, with an empty bucket."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._thread.start()
        reset = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset).close()
        bucket = urllib.request.Request(
            f"{self.endpoint}/bucket", method="PUT", headers={"Authorization": _CREDENTIALS}
        )
        urllib.request.urlopen(bucket).close()

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def upload(self, folder: Path, to: str = "") -> str:
        """Copy a folder into the bucket; its URL."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{to}{file.relative_to(folder)}", file.read_bytes())
        self.requests.clear()
        return f"{BUCKET}/{to}".rstrip("/")

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        obstore.put(self._bucket(), key, content)

    def delete(self, key: str) -> None:
        """Delete an object."""
        obstore.delete(self._bucket(), key)

    def _bucket(self) -> Any:
        return from_url(BUCKET, client_options={"allow_http": True})

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        asked = environ.get("HTTP_RANGE")
        span = None
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            span = int(first), int(last) + 1
        with self._lock:
            self.requests.append(Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], span))
            fault = self.faults.pop(0) if self.faults and asked else None
        time.sleep(self.seconds)
        if self.refuses:
            start("403 Forbidden", [("Content-Length", "0")])
            return []
        if fault in ("503", "429"):
            start(f"{fault} Slow Down", [("Content-Length", "0")])
            return []
        if fault == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        body = self._app(environ, start)
        return _half(body) if fault == "truncated" else body


def _half(body: Iterable[bytes]) -> Iterator[bytes]:
    """Half of a body, whose length was announced whole."""
    whole = b"".join(body)
    yield whole[: len(whole) // 2]


@contextmanager
def running() -> Iterator[ObjectStore]:
    """A server for the block, which clients of this process find."""
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        store.start()
        yield store
        store.stop()
