"""Train language models on a weighted blend of many pre-tokenised corpora."""

from typing import TYPE_CHECKING

from blendtitan.config import BlendConfig, SegmentConfig
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import Datasets, build_datasets
from blendtitan.dataset.sample import Sample
from blendtitan.errors import BlendTitanError

if TYPE_CHECKING:
    from blendtitan.loader import Batch, DataLoader

__all__ = [
    "Batch",
    "BlendConfig",
    "BlendTitanError",
    "BlendedDataset",
    "DataLoader",
    "Datasets",
    "Sample",
    "SegmentConfig",
    "build_datasets",
]


def __getattr__(name: str) -> object:
    # The loader brings torch along, which takes seconds to import; tokenising does without it.
    if name in ("Batch", "DataLoader"):
        from blendtitan import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
