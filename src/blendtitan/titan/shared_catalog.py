"""The catalog, and the index of the original's order, found or made by one rank for all.

Thousands of ranks that each open every ``.idx`` bring a file system down, and ranks that read
at different times may see different files. So rank 0 reads, and everyone else is told: what it
found, or the error that every rank then raises. How often that happens depends on the
configuration alone, never on the data.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import NoReturn

import torch
import torch.distributed as dist
from torchtitan.tools import utils

from blendtitan import errors
from blendtitan.config import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.dataset.order_index import IndexFile
from blendtitan.dataset.original_index import original_indices
from blendtitan.errors import BlendTitanError
from blendtitan.storage.catalog import Catalog
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_FOUND, _ERROR = b"F", b"E"


def shared_catalog(
    config: BlendConfig, *, build_check: Callable[[], TokenizerCheck | None] = lambda: None
) -> Catalog:
    """The catalog of a configuration, read by rank 0. A collective operation.

    Args:
        config: What to read.
        build_check: Called by rank 0 alone. What it returns compares the shards with the run's
            tokenizer, before any rank is given the catalog.

    Raises:
        BlendTitanError: What rank 0 met, on every rank.
    """
    return Catalog.from_bytes(
        from_first_rank(lambda: read_catalog(config, check=build_check()).to_bytes())
    )


def shared_indices(config: BlendConfig, catalog: Catalog) -> list[IndexFile | None]:
    """The index of each split in the original's order, built by rank 0. A collective operation.

    Raises:
        BlendTitanError: What rank 0 met, on every rank.
    """

    def find() -> bytes:
        found = original_indices(config, catalog)
        return json.dumps([index and dataclasses.astuple(index) for index in found]).encode()

    return [index and IndexFile(*index) for index in json.loads(from_first_rank(find))]


def from_first_rank(find: Callable[[], bytes]) -> bytes:
    """What rank 0 found, on every rank. A collective operation.

    Raises:
        BlendTitanError: What rank 0 met, on every rank.
    """
    message = _broadcast(_message(find) if is_first_rank() else b"")
    kind, payload = message[:1], message[1:]
    return payload if kind == _FOUND else _raise(payload)


def _message(find: Callable[[], bytes]) -> bytes:
    try:
        return _FOUND + find()
    except Exception as error:
        # Whatever it is, the other ranks wait for a message: it is raised on all of them.
        kind = type(error).__name__
        logger.debug("rank 0 failed", exc_info=True)
        if not isinstance(error, BlendTitanError):
            return _ERROR + json.dumps(["BlendTitanError", f"rank 0: {kind}: {error}"]).encode()
        return _ERROR + json.dumps([kind, *map(str, error.args)]).encode()


def _raise(payload: bytes) -> NoReturn:
    name, *lines = json.loads(payload)
    raise getattr(errors, name)(*lines)


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _broadcast(message: bytes) -> bytes:
    """The message of rank 0, on every rank. Without a process group, the message itself."""
    if not dist.is_initialized():
        return message
    size = torch.tensor([len(message)], device=utils.device_type)
    dist.broadcast(size, src=0)
    data = torch.empty(int(size), dtype=torch.uint8, device=utils.device_type)
    if message:
        data.copy_(torch.frombuffer(bytearray(message), dtype=torch.uint8))
    dist.broadcast(data, src=0)
    return data.cpu().numpy().tobytes()
