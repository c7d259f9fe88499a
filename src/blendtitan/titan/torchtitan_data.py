"""The loaders of TorchTitan's own datasets. Imported only by a run that reads one."""

from dataclasses import fields

from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

from blendtitan.titan.settings import TrainingSettings, ValidationSettings


def torchtitans_loader(
    section: TrainingSettings | ValidationSettings, dataset: str, *, infinite: bool = True
) -> HuggingFaceTextDataLoader.Config:
    """The loader of a dataset of TorchTitan, as a section configures it."""
    names = [field.name for field in fields(ParallelAwareDataloader.Config)]
    loading = {name: getattr(section.dataloader, name) for name in names}
    named = {"dataset": dataset, "dataset_path": section.dataset_path, "infinite": infinite}
    return HuggingFaceTextDataLoader.Config(**loading | named)
