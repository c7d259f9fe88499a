"""The catalog, read by one rank for all.

Thousands of ranks that each open every ``.idx`` bring a file system down, and ranks that read
at different times may see different files. So rank 0 reads, and everyone else is told: the
catalog, or the error that every rank then raises.
"""

import json
import logging
from typing import NoReturn

import torch
import torch.distributed as dist
from torchtitan.tools import utils

from blendtitan import errors
from blendtitan.config import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import BlendTitanError
from blendtitan.storage.catalog import Catalog

logger = logging.getLogger(__name__)

_CATALOG, _ERROR = b"C", b"E"


def shared_catalog(config: BlendConfig) -> Catalog:
    """The catalog of a configuration, read by rank 0. A collective operation.

    Raises:
        BlendTitanError: What rank 0 met, on every rank.
    """
    message = _broadcast(_read_message(config) if is_first_rank() else b"")
    kind, payload = message[:1], message[1:]
    return Catalog.from_bytes(payload) if kind == _CATALOG else _raise(payload)


def _read_message(config: BlendConfig) -> bytes:
    try:
        return _CATALOG + read_catalog(config).to_bytes()
    except Exception as error:
        # Whatever it is, the other ranks wait for a message: it is raised on all of them.
        kind = type(error).__name__
        logger.debug("reading the catalog failed", exc_info=True)
        if not isinstance(error, BlendTitanError):
            return _ERROR + json.dumps(["BlendTitanError", f"rank 0: {kind}: {error}"]).encode()
        return _ERROR + json.dumps([kind, str(error)]).encode()


def _raise(payload: bytes) -> NoReturn:
    name, text = json.loads(payload)
    raise getattr(errors, name)(text)


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
