"""What we rely on in TorchTitan's main branch, read from a checkout.

``scripts/try_titan_main --record PATH`` writes it to ``record.json``. Tests without a checkout
compare the adapter with that file, and tests with one compare the file with it.
"""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).parents[2] / "src/blendtitan"
FILE = Path(__file__).with_name("record.json")

SHARED = ("checkpoint", "cpu", "dataloader", "losses", "metrics", "model", "shared_catalog")
SHARED += ("tokenizer", "train", "trainer", "upstream", "validator", "with_blend")
"""Modules of ``blendtitan.titan`` that are used with main."""

ONLY_03 = {
    "torchtitan.components.dataloader BaseDataLoader",
    "torchtitan.hf_datasets.text_datasets HuggingFaceTextDataLoader",
}
"""Names that these modules import only with TorchTitan 0.3."""

CALLS = {
    "trainer builds loader": ("torchtitan.trainer Trainer.__init__", "config.dataloader.build"),
    "trainer builds validator": ("torchtitan.trainer Trainer.__init__", "config.validator.build"),
    "validator builds loader": (
        "torchtitan.components.validate Validator.validate",
        "self.dl_config.build",
    ),
    "validator changes loader": ("torchtitan.components.validate Validator.__init__", "replace"),
    "trainer calls loss": (
        "torchtitan.trainer Trainer._forward_backward_body",
        "self.loss_fn",
    ),
}
"""Function, and the call in it whose keywords are recorded."""

CLASSES = (
    "torchtitan.config.configs TrainingConfig",
    "torchtitan.config.configs ParallelismConfig",
    "torchtitan.trainer Trainer.Config",
    "torchtitan.components.validate Validator.Config",
)
"""Dataclasses whose fields are recorded."""

SIGNATURES = (
    "torchtitan.components.data.loader BaseDataLoader.__iter__",
    "torchtitan.components.data.loader BaseDataLoader.close",
    "torchtitan.components.loss CrossEntropyLoss.__call__",
    "torchtitan.components.loss _LossParallelCrossEntropy.forward",
    "torchtitan.components.metrics MetricsProcessor.log",
    "torchtitan.components.metrics MetricsProcessor.log_validation",
    "torchtitan.components.checkpointer CheckpointManager.dcp_load",
    "torchtitan.components.checkpointer CheckpointManager.dcp_save",
    "torchtitan.components.checkpointer CheckpointManager._load",
    "torchtitan.components.checkpointer CheckpointManager._save",
    "torchtitan.components.checkpointer CheckpointManager._wait_for_saving",
    "torchtitan.components.checkpointer CheckpointManager._find_load_step",
    "torchtitan.components.checkpointer CheckpointManager._purge_stale_checkpoints",
    "torchtitan.models.common.decoder Decoder.forward",
    "torchtitan.models.common.decoder Decoder.get_attention_masks",
    "torchtitan.trainer Trainer.batch_generator",
    "torchtitan.trainer Trainer.post_dataloading_process",
)
"""Functions whose parameters are recorded."""


def imported_names() -> list[str]:
    """Every ``module name`` that our modules import from TorchTitan on main."""
    files = [SOURCE / f"titan/{name}.py" for name in SHARED]
    files += sorted((SOURCE / "titan_main").glob("*.py"))
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return sorted({name for node in nodes for name in _names(node)} - ONLY_03)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "torchtitan":
        yield from (f"{node.module} {alias.name}" for alias in node.names)


def found(name: str) -> Any:
    """The object that a ``module name`` stands for."""
    module, _, path = name.partition(" ")
    value = importlib.import_module(module)
    for part in path.split("."):
        if not hasattr(value, part):  # a module that its package does not import
            return importlib.import_module(f"{module}.{part}")
        value = getattr(value, part)
    return value


def keywords_of(call: str, function: Any) -> list[str]:
    """Names of the keyword arguments that a function gives in its first ``call(...)``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    first = next(node for node in calls if ast.unparse(node.func) == call)
    return sorted(str(keyword.arg) for keyword in first.keywords)


def batch_of_main() -> dict[str, list[Any]]:
    """Type and shape of each tensor of a batch of two rows of three tokens, and its positions."""
    data = importlib.import_module("torchtitan.components.data")
    row = data.TextSequence(input_ids=np.arange(3), labels=np.arange(1, 4))
    context = data.DatasetBuildContext(
        tokenizer=None, max_context_length=3, num_tokens_per_batch=6, read_options=None
    )
    inputs, labels = data.TextCollator.Config().build(context=context)([row, row])
    batch = inputs | {"labels": labels}
    shapes = {name: [str(value.dtype), list(value.shape)] for name, value in batch.items()}
    return shapes | {"values of positions": inputs["positions"].tolist()}


def record() -> dict[str, Any]:
    """The record of the installed TorchTitan."""
    return {
        "names": [name for name in imported_names() if found(name) is not None],
        "keywords": {
            title: keywords_of(call, found(function)) for title, (function, call) in CALLS.items()
        },
        "fields": {name: sorted(field.name for field in fields(found(name))) for name in CLASSES},
        "parameters": {
            name: list(inspect.signature(found(name)).parameters) for name in SIGNATURES
        },
        "batch": batch_of_main(),
    }


def recorded() -> dict[str, Any]:
    """The record in the file."""
    return json.loads(FILE.read_text())


def main(checkout: str) -> None:
    from blendtitan.titan import prepare

    prepare()
    git = ["git", "-C", checkout, "log", "-1", "--format=%H %cs"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    FILE.write_text(json.dumps({"commit": commit} | record(), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
