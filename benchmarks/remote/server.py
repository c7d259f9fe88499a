"""A small server on loopback that answers the requests of S3 that loaders make.

It answers each request after a latency, and sends at most so many bytes a second to all connections
together. It serves the files of a folder as the bucket ``bucket``, from a process of its own.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from aiohttp import web

_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"

# What is sent in one piece: connections take turns after each.
_PIECE_BYTES = 1 << 16


class Link(NamedTuple):
    """How far away the store is."""

    latency: float
    """Seconds before the answer to a request begins."""

    bandwidth: float = 0.0
    """Bytes a second of all connections together; 0: as fast as it goes."""

    def __str__(self) -> str:
        speed = f"{self.bandwidth / 1e6:.0f}" if self.bandwidth else "no limit"
        return f"{self.latency * 1e3:.0f} | {speed}"


class Counts(NamedTuple):
    """What the server answered since the last time."""

    requests: int
    num_bytes: int


class Store:
    """Answers HEAD, GET with and without ranges, and lists, for the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = Link(0.0)
        self.requests = 0
        self.num_bytes = 0
        self._free_at = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request, after the latency."""
        self.requests += 1
        await asyncio.sleep(self.link.latency)
        if "list-type" in request.query:
            return self._list(request.query.get("prefix", ""))
        path = self.folder / request.match_info["key"]
        if not path.is_file():
            return web.Response(status=404)
        found = path.stat()
        headers = {"ETag": f'"{found.st_mtime_ns}"', "Last-Modified": _DATE}
        headers["Accept-Ranges"] = "bytes"
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(found.st_size)})
        span = request.http_range
        start, stop = span.start or 0, min(span.stop or found.st_size, found.st_size)
        status = 206 if "Range" in request.headers else 200
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.st_size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        # A loader that ends leaves requests behind.
        with contextlib.suppress(ConnectionError), path.open("rb") as file:
            await response.prepare(request)
            for at in range(start, stop, _PIECE_BYTES):
                piece = os.pread(file.fileno(), min(_PIECE_BYTES, stop - at), at)
                await self._turn(len(piece))
                await response.write(piece)
                self.num_bytes += len(piece)
        return response

    async def _turn(self, num_bytes: int) -> None:
        """Wait until the link has sent what was before, and this."""
        if self.link.bandwidth:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + num_bytes / self.link.bandwidth
            await asyncio.sleep(self._free_at - now)

    def _list(self, prefix: str) -> web.Response:
        folder = self.folder / prefix
        files = sorted(path for path in folder.iterdir() if path.is_file())
        found = "".join(
            f"<Contents><Key>{quote(prefix + f.name)}</Key><LastModified>2026-01-01T00:00:00Z"
            f"</LastModified><ETag>&quot;{f.stat().st_mtime_ns}&quot;</ETag>"
            f"<Size>{f.stat().st_size}</Size></Contents>"
            for f in files
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")

    async def control(self, request: web.Request) -> web.Response:
        """Set the link; answer the counts since the last time."""
        counts = {"requests": self.requests, "num_bytes": self.num_bytes}
        self.link = Link(*(float(request.query[name]) for name in Link._fields))
        self.requests = self.num_bytes = 0
        return web.json_response(counts)


def serve(folder: Path, port: int) -> None:
    """Answer until the process is ended."""
    store = Store(folder)
    app = web.Application()
    app.router.add_get("/control", store.control)
    app.router.add_route("*", "/bucket", store.answer)
    app.router.add_route("*", "/bucket/{key:.*}", store.answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[str]:
    """The server, in a process of its own; its address."""
    process = subprocess.Popen([sys.executable, __file__, folder, str(port)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def control(endpoint: str, link: Link) -> Counts:
    """Set the link; the counts since the last time."""
    query = f"latency={link.latency}&bandwidth={link.bandwidth}"
    for _ in range(100):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{endpoint}/control?{query}") as answer,
        ):
            return Counts(**json.load(answer))
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
