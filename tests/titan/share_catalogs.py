"""Shares the catalog of each file list named, on every rank, and prints the errors as JSON.

The arguments are file lists. ``RANK ERROR`` lines go to the file ``$RECORD.RANK``.
"""

import json
import os
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from blendtitan import BlendConfig
from blendtitan.errors import BlendTitanError
from blendtitan.titan import shared_catalog


def main(*paths: str) -> None:
    if os.environ["RANK"] != "0":
        # The proof that no other rank reads anything.
        shared_catalog.read_catalog = None  # pyright: ignore
    dist.init_process_group("gloo")
    found = []
    for path in paths:
        config = BlendConfig(data_file_list=path, seq_length=4, eod_token_id=2)
        try:
            shared_catalog.shared_catalog(config)
            found.append(["no error", ""])
        except BlendTitanError as error:
            found.append([type(error).__name__, str(error)])
    Path(f"{os.environ['RECORD']}.{os.environ['RANK']}").write_text(json.dumps(found))
    dist.destroy_process_group()


def find_nothing() -> NoReturn:
    raise KeyError("missing")


def share_nothing() -> None:
    """Share what rank 0 cannot find, and write down the error of each rank."""
    dist.init_process_group("gloo")
    try:
        shared_catalog.from_first_rank(find_nothing)
    except Exception as error:
        found = [type(error).__name__, str(error)]
        Path(f"{os.environ['RECORD']}.{os.environ['RANK']}").write_text(json.dumps(found))
    dist.destroy_process_group()
