"""Measures one request in this process and prints one JSON line.

python child.py REQUEST.json SOURCE_FOLDER
"""

import gc
import importlib
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from request import Request
from sources import EOD, PRIME, Source

WARM_UP_SECONDS = 0.3
SHOWN_BATCHES = 20
"""Of the first batches the content is checked, before the clock of reading runs."""

TORN = 0.02
"""Part of the neighbours that may not belong together: they lie at documents' ends."""

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def main(request: Request, source: Source) -> None:
    engine = importlib.import_module(f"engines.{request.engine}")
    torch.zeros(1, dtype=torch.int32).long()
    if request.max_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (request.max_files, request.max_files))
    gc.collect()  # What the imports left would else be collected while the clock runs.
    before = usage()
    start = time.perf_counter()
    if hasattr(engine, "once") and not request.batch:
        engine.once(request, source)
        print(json.dumps({"start_s": time.perf_counter() - start}))
        return
    batches = engine.open_batches(request, source)
    opened = time.perf_counter()
    first = next(batches)
    done = time.perf_counter()
    after = usage()
    found = {"start_s": done - start, "first_batch_ms": 1e3 * (done - opened)}
    found |= {name: after[name] - before[name] for name in before}
    check(first, request, source)
    if request.seconds:
        for _ in range(SHOWN_BATCHES):
            check(next(batches), request, source)
        read(batches, request, seconds=WARM_UP_SECONDS)
        found |= read(batches, request, seconds=request.seconds)
    print(json.dumps(found))


def read(batches: Batches, request: Request, *, seconds: float) -> dict[str, float]:
    """Take batches for so long; tokens per second, and waits if a step takes time."""
    waits: list[float] = []
    num_tokens = 0
    start = at = time.perf_counter()
    while at - start < seconds:
        inputs, labels = next(batches)
        now = time.perf_counter()
        waits.append(now - at)
        assert inputs.shape == labels.shape
        num_tokens += inputs.numel()
        if request.step_ms:
            time.sleep(request.step_ms / 1e3)
        at = time.perf_counter()
    if request.step_ms:
        median, late, most = 1e6 * np.quantile(waits, [0.5, 0.95, 1.0])
        return {"wait_us": median, "wait_95_us": late, "wait_max_us": most}
    return {"tokens_per_s": num_tokens / (at - start)}


def check(batch: tuple[torch.Tensor, torch.Tensor], request: Request, source: Source) -> None:
    """Check that a batch has the shape asked for, and tokens of the source's corpora.

    Raises:
        RuntimeError: It has not.
    """
    inputs, labels = batch
    shape = (request.batch, request.seq_len)
    if not all(part.shape == shape and part.dtype == torch.int64 for part in batch):
        raise RuntimeError(
            f"found batches of {inputs.shape}, {inputs.dtype}, expected int64 {shape}"
        )
    if request.engine == "titan":  # Its labels do not cross documents, and its text is another.
        if not (inputs[:, 1:] == labels[:, :-1]).float().mean() > 1 - TORN:
            raise RuntimeError("labels are not the inputs' next tokens")
        return
    if not torch.equal(inputs[:, 1:], labels[:, :-1]):
        raise RuntimeError("labels are not the inputs' next tokens")
    if source.sparse:
        if inputs.any():
            raise RuntimeError("found tokens where the files have holes")
        return
    steps = [source.step_of(corpus) for corpus in range(source.num_corpora)]
    found = (inputs[:, 1:] - inputs[:, :-1]) % PRIME
    torn = ~torch.isin(found, torch.tensor(steps))
    if torn.float().mean() > TORN or (inputs != EOD).sum() == 0:
        raise RuntimeError(f"{torn.float().mean():.2f} of the tokens are of no corpus")


def leave() -> NoReturn:
    """End at once: engines' threads are not waited for, and their worker processes are ended."""
    sys.stdout.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)


def usage() -> dict[str, float]:
    """Memory that this process alone uses, its open files and its maps of files."""
    rollup: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        rollup[name] = int(value.split()[0])
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {
        "memory_mib": (rollup["Private_Clean"] + rollup["Private_Dirty"]) / 1024,
        "anonymous_mib": rollup["Anonymous"] / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "maps": sum(len(line.split()) > 5 and "/" in line for line in maps),
    }


if __name__ == "__main__":
    try:
        main(Request(**json.loads(sys.argv[1])), Source.read(Path(sys.argv[2])))
    except Exception as error:  # What an engine raises is a result.
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
    leave()
