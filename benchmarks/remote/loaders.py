"""One loader reads from the store, in a process of its own.

    python loaders.py LOADER PLACE FOLDER STEPS STEP_SECONDS

Prints a line of JSON: seconds from nothing to the first batch, the seconds that each further step
waits for its batch while training takes ``STEP_SECONDS`` for each, and bytes on the disk.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokens import EOD, EPOCHS, MICRO_BATCH, SEQ_LENGTH, import_streaming

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
Open = Callable[[str, Path], Batches]
"""Opens what is at a place of the store, with a folder for copies."""


def blendtitan_loader(*, staged: float = 0.0, **options: int) -> Open:
    """Windows, read as they are needed, or from blocks that were copied to the disk.

    Args:
        staged: The part of the tokens that the disk holds. 0: nothing is copied.
        options: Settings of the configuration.
    """
    from blendtitan import BlendConfig, DataLoader, build_datasets, remote  # noqa: F401
    from blendtitan.staging.blocks import BLOCK_BYTES
    from blendtitan.staging.run import stage

    def open_batches(place: str, copies: Path) -> Batches:
        config = BlendConfig(
            data_file_list=place, seq_length=SEQ_LENGTH, eod_token_id=EOD, seed=1, append_eod=True,
            **options,
        )  # fmt: skip
        loader = DataLoader(build_datasets(config).train, MICRO_BATCH)
        if staged:
            num_windows = loader.dataset.num_windows
            num_bytes = int(staged * num_windows * SEQ_LENGTH * 2) + BLOCK_BYTES
            stage(loader, copies, num_bytes, num_samples=EPOCHS * num_windows)
        return ((batch.input_ids, batch.labels) for batch in loader)

    return open_batches


def litdata_loader() -> Open:
    """As LitGPT reads pre-tokenised text: chunks are copied to the disk, and read there."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming import downloader

    # The server on loopback has no TLS, which litdata has no option for.
    downloader._OBSTORE_CLIENT_OPTIONS = {**downloader._OBSTORE_CLIENT_OPTIONS, "allow_http": True}

    def open_batches(place: str, copies: Path) -> Batches:
        dataset = StreamingDataset(
            input_dir=place,
            cache_dir=str(copies),
            item_loader=TokensLoader(block_size=SEQ_LENGTH + 1),
            shuffle=True,
            drop_last=True,
            storage_options={"endpoint_url": os.environ["AWS_ENDPOINT_URL"]},
        )
        loader = StreamingDataLoader(dataset, batch_size=MICRO_BATCH, num_workers=2, drop_last=True)
        return ((each[:, :-1].long(), each[:, 1:].long()) for each in _endless(loader))

    return open_batches


def streaming_loader() -> Open:
    """As LLM Foundry reads pre-tokenised text: shards are copied to the disk, and read there."""
    streaming = import_streaming()

    class TokenDataset(streaming.StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            return torch.from_numpy(super().__getitem__(at)["tokens"].astype(np.int64))

    def open_batches(place: str, copies: Path) -> Batches:
        os.environ["S3_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL"]
        streaming.base.util.clean_stale_shared_memory()
        dataset = TokenDataset(
            remote=place, local=str(copies), shuffle=True, batch_size=MICRO_BATCH
        )
        # Forked processes that inherited the client would share a connection, and mix up answers.
        for stream in dataset.streams:
            stream._downloader.clean_up()
        loader = streaming.StreamingDataLoader(
            dataset, batch_size=MICRO_BATCH, num_workers=2, drop_last=True
        )
        return ((each[:, :-1], each[:, 1:]) for each in _endless(loader))

    return open_batches


def _endless(loader: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    while True:
        yield from loader


LOADERS: dict[str, tuple[str, Callable[[], Open]]] = {
    "blendtitan": ("one/list.txt", blendtitan_loader),
    "blendtitan, 8 threads": ("one/list.txt", partial(blendtitan_loader, num_workers=8)),
    "blendtitan, staged": ("one/list.txt", partial(blendtitan_loader, staged=1.0)),
    "blendtitan, 10 % staged": ("one/list.txt", partial(blendtitan_loader, staged=0.1)),
    "litdata": ("litdata", litdata_loader),
    "mosaicml-streaming": ("mds", streaming_loader),
}
"""What each loader reads in the bucket, and what imports it."""


class Disk:
    """The most bytes that a folder held, looked at twice a second."""

    def __init__(self, folder: Path) -> None:
        self.most = 0
        self._folder = folder
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            now = 0
            for to, _, names in os.walk(self._folder):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                        now += Path(to, name).stat().st_blocks * 512
            self.most = max(self.most, now)
            time.sleep(0.5)


def main(name: str, place: str, copies: Path, steps: int, step_seconds: float) -> None:
    """Read ``steps`` batches, and print what was measured."""
    disk = Disk(copies)
    open_batches = LOADERS[name][1]()
    began = time.perf_counter()
    batches = open_batches(place, copies)
    inputs, labels = next(batches)
    first = time.perf_counter() - began
    shape = (MICRO_BATCH, SEQ_LENGTH)
    if inputs.shape != shape or labels.shape != shape or not inputs[:, 1:].equal(labels[:, :-1]):
        raise RuntimeError(f"{name}: found other tokens than those expected")
    waited = []
    for _ in range(steps - 1):
        time.sleep(step_seconds)
        asked = time.perf_counter()
        next(batches)
        waited.append(time.perf_counter() - asked)
    found = {"first": first, "waited": waited, "seconds": time.perf_counter() - began}
    print(json.dumps(found | {"disk": disk.most}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
