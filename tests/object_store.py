"""A real S3 server on loopback, moto's, with the faults of a network."""

import logging
import socket
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class WebServer(ThreadingHTTPServer):
    """Serves ranges of a folder, and ignores If-Match as many web servers do."""

    def __init__(self, folder: Path, e_tag: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _WebAnswer)
        self.folder = folder
        self.e_tag = e_tag
        """What the ETags begin with. None: there are none."""
        self.url = f"http://127.0.0.1:{self.server_port}"


class _WebAnswer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        path = self.server.folder / self.path[1:]
        if not path.is_file():
            self.send_error(404)
            return
        content, asked = path.read_bytes(), self.headers.get("Range")
        span = (0, len(content) - 1)
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            span = int(first), min(int(last), len(content) - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1]}/{len(content)}")
        if self.server.e_tag is not None:
            self.send_header("ETag", f'{self.server.e_tag}"{zlib.crc32(content)}"')
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.send_header("Content-Length", str(span[1] - span[0] + 1))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[span[0] : span[1] + 1])

    do_GET = do_HEAD


@contextmanager
def serving(folder: Path, e_tag: str | None) -> Iterator[str]:
    """The URL of a web server for a folder."""
    with WebServer(folder, e_tag) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


class ObjectStore:
    """The server. ``faults`` are those of the next reads, one each."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[Request] = []
        self.faults: list[str] = []
        """``503``, ``429``, ``truncated`` or ``reset``."""
        self.upload_faults: list[str] = []
        """Those of the next uploads: ``503``, ``429`` or ``reset``."""
        self.refuses: Callable[[str, str], bool] = lambda method, path: False
        """Whether a request is not allowed."""
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

    def content(self, folder: str = "") -> dict[str, bytes]:
        """All objects below a folder, by their names in it."""
        bucket = self._bucket()
        names = [each["path"] for page in obstore.list(bucket, folder or None) for each in page]
        start = len(folder) + 1 if folder else 0
        return {name[start:]: bytes(obstore.get(bucket, name).bytes()) for name in names}

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
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append(Request(method, path, span))
            faults = self.faults if asked else self.upload_faults if method == "PUT" else []
            fault = faults.pop(0) if faults else None
        time.sleep(self.seconds)
        if self.refuses(method, path):
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
