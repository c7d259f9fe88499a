"""Object storage: how long a run waits for it, beside other loaders.

    python benchmarks/remote FOLDER [--tables start steps epochs] [--loaders NAME ...]

A small server on loopback, in a process of its own, answers the requests of S3 that loaders make,
each after a latency, with a limit on the bytes a second. FOLDER gets the tokens: random ids, about
4 GB. Each measurement is a process of its own that begins with an empty disk. The tables:

start   ours: the catalog of 2,419 shards from nothing, again with the catalog kept in a folder, and
        the wait of each step while training takes 0.25 s for each
steps   all loaders: the wait of each step while training takes 25 ms for each
epochs  all loaders: two epochs as fast as it goes

litdata and mosaicml-streaming are measured if they are installed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loaders import LOADERS
from server import Counts, Link, control, running
from tokens import (
    EOD,
    EPOCHS,
    MICRO_BATCH,
    SEQ_LENGTH,
    STEP_BYTES,
    is_installed,
    num_tokens,
    write_tokens,
)

from blendtitan import BlendConfig, build_datasets, remote

HERE = Path(__file__).parent
PORT = 18_923
BUCKET = "s3://bucket"
LATENCIES = (0.0, 0.005, 0.02, 0.1)
LINKS = (
    *(Link(latency) for latency in (0.005, 0.02, 0.1)),
    *(Link(0.02, bandwidth) for bandwidth in (200e6, 50e6, 10e6)),
)
EPOCHS_LINK = Link(0.02, 200e6)


def print_start(folder: Path, endpoint: str) -> None:
    """Ours with many shards: the start, and the waits of 40 steps."""
    print("| latency, ms | cold start, s | requests | kept catalog, s | wait, ms: median | most |")
    print("|---|---|---|---|---|---|")
    places = {"s3": f"{BUCKET}/many/list.txt", "disk": str(folder / "many/list.txt")}
    for name, latency in [("disk", 0.0), *(("s3", each) for each in LATENCIES)]:
        control(endpoint, Link(latency))
        seconds = []
        requests = 0
        with tempfile.TemporaryDirectory() as kept:
            for cache in (None, kept, kept):
                remote.forget()
                config = BlendConfig(
                    data_file_list=places[name], data_cache_path=cache, seq_length=SEQ_LENGTH,
                    eod_token_id=EOD, seed=1, append_eod=True,
                )  # fmt: skip
                began = time.perf_counter()
                _ = build_datasets(config).train
                seconds.append(time.perf_counter() - began)
                if cache is None:
                    requests = control(endpoint, Link(latency)).requests
        found = read("blendtitan", places[name], 41, 0.25)
        waited = found["waited"] if found else [float("nan")]
        print(
            f"| {name} {latency * 1e3:.0f} | {seconds[0]:.2f} | {requests:,} | {seconds[2]:.2f} | "
            f"{statistics.median(waited) * 1e3:.1f} | {max(waited) * 1e3:.0f} |",
            flush=True,
        )


def print_steps(loaders: list[str], endpoint: str, steps: int) -> None:
    """All loaders: the waits of steps at each latency and bandwidth."""
    print(
        "| latency, ms | MB/s | loader | first batch, s | wait, ms: median | mean | most "
        "| fetched / used | requests | disk, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for link in LINKS:
        for name in loaders:
            found, counts = measured(name, link, endpoint, steps, 0.025)
            if found is None:
                print(f"| {link} | {name} | failed |", flush=True)
                continue
            waited = [seconds * 1e3 for seconds in found["waited"]]
            print(
                f"| {link} | {name} | {found['first']:.2f} | {statistics.median(waited):.1f} | "
                f"{statistics.mean(waited):.1f} | {max(waited):,.0f} | "
                f"{counts.num_bytes / steps / STEP_BYTES:.2f} | {counts.requests:,} | "
                f"{found['disk'] / 1e6:,.0f} |",
                flush=True,
            )


def print_epochs(loaders: list[str], endpoint: str, tokens: int) -> None:
    """All loaders: two epochs, or nearly: loaders leave out different tokens at the end of one."""
    steps = int(EPOCHS * tokens * 0.99) // (MICRO_BATCH * SEQ_LENGTH)
    print("| loader | M tokens/s | fetched / used | requests | disk, MB |")
    print("|---|---|---|---|---|")
    for name in loaders:
        found, counts = measured(name, EPOCHS_LINK, endpoint, steps, 0.0)
        if found is None:
            print(f"| {name} | failed |", flush=True)
            continue
        speed = steps * MICRO_BATCH * SEQ_LENGTH / found["seconds"] / 1e6
        print(
            f"| {name} | {speed:.1f} | {counts.num_bytes / steps / STEP_BYTES:.2f} | "
            f"{counts.requests:,} | {found['disk'] / 1e6:,.0f} |",
            flush=True,
        )


def measured(
    name: str, link: Link, endpoint: str, steps: int, step_seconds: float
) -> tuple[dict | None, Counts]:
    """As ``read``, over a link; and what the server answered."""
    control(endpoint, link)
    found = read(name, f"{BUCKET}/{LOADERS[name][0]}", steps, step_seconds)
    return found, control(endpoint, link)


def read(name: str, place: str, steps: int, step_seconds: float) -> dict | None:
    """What a process of one loader measured; None: it failed. No process of it is left."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, HERE / "loaders.py", name, place, cache]
        process = subprocess.Popen(
            [*command, str(steps), str(step_seconds)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return json.loads(line) if line else None


def main() -> None:
    """Measure, and print the report's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", default=["start", "steps", "epochs"])
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--shards", type=int, nargs=2, default=(2419, 20), help="small and large")
    options = parser.parse_args()
    small, large = options.shards
    write_tokens(options.folder, num_small=small, num_large=large)
    loaders = [name for name in options.loaders if is_installed(name)]
    for name in set(options.loaders) - set(loaders):
        print(f"{name}: not installed\n")
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ALLOW_HTTP": "true", "LITDATA_DISABLE_VERSION_CHECK": "1"}
    with running(options.folder.absolute(), PORT) as endpoint:
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        if "start" in options.tables:
            print_start(options.folder, endpoint)
        if "steps" in options.tables:
            print_steps(loaders, endpoint, options.steps)
        if "epochs" in options.tables:
            print_epochs(loaders, endpoint, num_tokens(options.folder))


if __name__ == "__main__":
    main()
