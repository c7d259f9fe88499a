"""Object storage: how long a run waits for it, at several latencies.

    python benchmarks/remote.py FOLDER [--shards 2419] [--steps 40]

A small server on loopback, in a process of its own, answers the requests of S3 that a run makes,
each after a latency. FOLDER gets shards of random ids. Two things are measured:

- the start: the catalog of all shards, from nothing, and again with the catalog kept in a folder;
- the wait of each step for its batch, while training takes a fixed time for each step. Without
  enough time to read ahead, a run waits for the store.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
from aiohttp import web

from blendtitan import BlendConfig, DataLoader, build_datasets, remote
from blendtitan.storage.writer import ShardWriter

EOD = 2
SEQ_LENGTH = 8192
MICRO_BATCH = 8
LATENCIES = (0.0, 0.005, 0.02, 0.1)
STEP_SECONDS = 0.25

_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def write_shards(folder: Path, num_shards: int) -> None:
    """Shards in 40 corpora, and a file list."""
    generator = np.random.default_rng(0)
    lines = []
    for number in range(num_shards):
        name = f"corpus_{number % 40}/shard_{number}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with ShardWriter.create(folder / name, dtype=np.dtype("<u2")) as writer:
            for _ in range(60):
                ids = generator.integers(3, 50_000, generator.integers(100, 1000))
                writer.add_document(np.append(ids, EOD))
        lines.append(f"1 {name} corpus_{number % 40}")
    (folder / "list.txt").write_text("\n".join(lines))


class Store:
    """Answers HEAD, ranges and lists for the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.latency = 0.0
        self.requests = 0
        self.bytes = 0

    async def answer(self, request: web.Request) -> web.Response:
        """One request, after the latency."""
        self.requests += 1
        await asyncio.sleep(self.latency)
        if "list-type" in request.query:
            return self._list(request.query.get("prefix", ""))
        path = self.folder / request.match_info["key"]
        if not path.is_file():
            return web.Response(status=404)
        found = path.stat()
        headers = {"ETag": f'"{found.st_mtime_ns}"', "Last-Modified": _DATE}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(found.st_size)})
        span, start = request.http_range, request.http_range.start or 0
        with path.open("rb") as file:
            file.seek(start)
            body = file.read((span.stop or found.st_size) - start)
        self.bytes += len(body)
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{found.st_size}"
        return web.Response(status=206, body=body, headers=headers)

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
        """Set the latency; answer the counts since the last time."""
        counts = {"requests": self.requests, "bytes": self.bytes}
        self.latency = float(request.query["latency"])
        self.requests = self.bytes = 0
        return web.json_response(counts)


def _serve(folder: Path, port: int) -> None:
    store = Store(folder)
    app = web.Application()
    app.router.add_get("/control", store.control)
    app.router.add_route("*", "/bucket", store.answer)
    app.router.add_route("*", "/bucket/{key:.*}", store.answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.contextmanager
def running(folder: Path, port: int = 18_923) -> Iterator[str]:
    """The server, in a process of its own; its address."""
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, port))
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def control(endpoint: str, latency: float) -> dict[str, int]:
    """Set the latency; the counts since the last time."""
    for _ in range(100):
        url = f"{endpoint}/control?latency={latency}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
            return json.load(answer)
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def waits(dataset: object, *, workers: int, steps: int) -> list[float]:
    """Seconds that each step waits for its batch."""
    loader = DataLoader(dataset, MICRO_BATCH, num_workers=workers, prefetch=2 * workers)
    batches = iter(loader)
    next(batches)
    waited = []
    for _ in range(steps):
        time.sleep(STEP_SECONDS)
        began = time.perf_counter()
        next(batches)
        waited.append(time.perf_counter() - began)
    return waited


def main() -> None:
    """Measure, and print the rows of the report's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=2419)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    if not (options.folder / "list.txt").exists():
        write_shards(options.folder, options.shards)
    with running(options.folder.absolute()) as endpoint, tempfile.TemporaryDirectory() as kept:
        os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}
        blend = {"seq_length": SEQ_LENGTH, "eod_token_id": EOD, "seed": 1, "append_eod": True}
        places = {"s3": "s3://bucket/list.txt", "disk": str(options.folder / "list.txt")}
        print("| latency, ms | cold start, s | requests | kept catalog, s | wait per step, ms |")
        for name, latency in [("disk", 0.0), *(("s3", each) for each in LATENCIES)]:
            control(endpoint, latency)
            seconds = []
            for cache in (None, kept, kept):
                remote.forget()
                config = BlendConfig(data_file_list=places[name], data_cache_path=cache, **blend)
                began = time.perf_counter()
                dataset = build_datasets(config).train
                seconds.append(time.perf_counter() - began)
                if cache is None:
                    requests = control(endpoint, latency)["requests"]
            waited = waits(dataset, workers=2, steps=options.steps)
            print(
                f"| {name} {latency * 1e3:.0f} | {seconds[0]:.2f} | {requests:,} | "
                f"{seconds[2]:.2f} | "
                f"{statistics.median(waited) * 1e3:.1f} (most {max(waited) * 1e3:.0f}) |"
            )


if __name__ == "__main__":
    main()
