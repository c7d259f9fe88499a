"""The catalog of a run, read by rank 0 for all ranks.

Thousands of ranks that each open every ``.idx`` overload a file system, and ranks that read at
different times may see different files. So rank 0 reads, and broadcasts the result, or an error
that every rank raises. The number of broadcasts depends only on the configuration, not on the
data.
"""

import json
import traceback
from collections.abc import Callable

import torch
import torch.distributed as dist
from torchtitan.tools import utils

from blendtitan import errors
from blendtitan.config import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import BlendTitanError
from blendtitan.placed_loader import is_first_rank
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from blendtitan.tokenizer_check.run import TokenizerCheck

_FOUND, _ERROR, _FAILURE = b"F", b"E", b"X"


def shared_catalog(
    config: BlendConfig, *, build_check: Callable[[], TokenizerCheck | None] = lambda: None
) -> Catalog:
    """The catalog of a configuration, read by rank 0. A collective operation.

    Args:
        config: The blend.
        build_check: Called on rank 0 only. The check that it returns compares the shards with
            the run's tokenizer before the catalog is broadcast.

    Raises:
        BlendTitanError: An error of rank 0, on every rank.
    """
    return decode_catalog(
        from_first_rank(lambda: encode_catalog(read_catalog(config, check=build_check())))
    )


def from_first_rank(find: Callable[[], bytes | None]) -> bytes:
    """The result of ``find`` on rank 0, on every rank; no bytes for None. A collective operation.

    Raises:
        BlendTitanError: An error of rank 0, on every rank.
        Exception: Any other error of rank 0, unchanged there; on the other ranks a RuntimeError
            with its traceback.
    """
    error: Exception | None = None
    message = b""
    if is_first_rank():
        try:
            message = _FOUND + (find() or b"")
        except Exception as caught:  # the other ranks wait for a message in any case
            error = caught
            message = _message_of(caught)
    message = _broadcast(message)
    if error is not None:
        raise error
    kind, payload = message[:1], message[1:]
    if kind == _FAILURE:
        raise RuntimeError(payload.decode())
    if kind == _ERROR:
        name, *lines = json.loads(payload)
        raise getattr(errors, name)(*lines)
    return payload


def _message_of(error: Exception) -> bytes:
    if isinstance(error, BlendTitanError):
        return _ERROR + json.dumps([type(error).__name__, *map(str, error.args)]).encode()
    lines = ["rank 0 failed:\n", *traceback.format_exception(error)]
    return _FAILURE + "".join(lines).encode(errors="backslashreplace")


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
