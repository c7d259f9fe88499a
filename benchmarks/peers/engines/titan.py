"""TorchTitan's own text loader: reads text and makes the tokens while it trains.

A dataset is registered as its ``docs/datasets.md`` says. The text is another (see ``convert.py``).
"""

from collections.abc import Iterator

import torch
from datasets import load_dataset
from request import Request
from sources import Source
from torchtitan.components.tokenizer import HuggingFaceTokenizer
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataLoader

DATASETS["text"] = DatasetConfig(
    path="",
    loader=lambda path: load_dataset("json", data_files=path, split="train"),
    sample_processor=lambda sample: sample["text"],
)


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    folder = source.cache("text_format")
    loader = HuggingFaceTextDataLoader(
        HuggingFaceTextDataLoader.Config(
            dataset="text",
            dataset_path=str(folder / "text.jsonl"),
            num_workers=request.workers,
        ),
        dp_world_size=1,
        dp_rank=0,
        tokenizer=HuggingFaceTokenizer(tokenizer_path=str(folder)),
        seq_len=request.seq_len,
        local_batch_size=request.batch,
    )
    return ((inputs["input"], labels) for inputs, labels in loader)
