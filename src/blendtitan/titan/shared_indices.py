"""The index of the original's order, built by rank 0 for all ranks."""

import dataclasses
import json

from blendtitan.config import BlendConfig
from blendtitan.original.build import original_indices
from blendtitan.original.index import IndexFile
from blendtitan.storage.catalog import Catalog
from blendtitan.titan.shared_catalog import from_first_rank


def shared_indices(config: BlendConfig, catalog: Catalog) -> list[IndexFile | None]:
    """The index of each split in the original's order. A collective operation.

    Raises:
        BlendTitanError: An error of rank 0, on every rank.
    """

    def find() -> bytes:
        found = original_indices(config, catalog)
        return json.dumps([index and dataclasses.astuple(index) for index in found]).encode()

    return [index and IndexFile(*index) for index in json.loads(from_first_rank(find))]
