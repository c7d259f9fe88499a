"""Recorded cases of the original BlendCorpus: configurations, and what it read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan import BlendConfig

FOLDER = Path(__file__).parent / "data/original_order"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/case.json"))


def case_settings(name: str) -> dict[str, Any]:
    """What the original was started with."""
    return json.loads((FOLDER / name / "case.json").read_text())


def case_config(name: str, cache: Path, **settings: Any) -> BlendConfig:
    """A configuration that reads what the original read."""
    case = case_settings(name)
    same = ("seq_length", "split", "seed", "shuffle_sample_in_corpus", "blend_sample_in_corpus")
    given = {
        "data_file_list": FOLDER / name / "file_list.txt",
        "eod_token_id": case["eod_token_id"],
        "order": "blendcorpus",
        "train_samples": case["global_batch_size"] * case["train_iters"],
        "eval_samples": case["global_batch_size"] * case["eval_iters"],
        "data_cache_path": cache,
    }
    return BlendConfig(**{key: case[key] for key in same} | given | settings)


def recorded(name: str) -> dict[str, NDArray[Any]]:
    """Rows, corpora and lengths of each split that the original had."""
    with np.load(FOLDER / name / "expected.npz") as arrays:
        return dict(arrays)
