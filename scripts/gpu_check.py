"""Measure a blend against TorchTitan's own loader: step times, waiting for data, losses.

Every case trains the same model on the same text, in a process of its own, on one device. Only
the loader, the masks and what is logged of corpora differ. The report is a Markdown file.
"""

import argparse
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
COMMAND = "scripts/gpu_check"

logger = logging.getLogger("gpu_check")


@dataclass(frozen=True)
class Case:
    """What one process trains on."""

    name: str
    loader: Literal["blend", "torchtitan"]
    told_apart: bool = False
    """Whether documents are. TorchTitan's loader does so always, where attention has masks."""

    corpus_losses: bool = True
    workers: int = 2
    """Threads of the blend, processes of TorchTitan's loader."""


CASES = (
    Case("blend, intra-document masking", "blend", told_apart=True),
    Case("the same, without losses per corpus", "blend", told_apart=True, corpus_losses=False),
    Case("blend, rows as one document", "blend"),
    Case("blend, rows as one document, without losses per corpus", "blend", corpus_losses=False),
    Case("TorchTitan's loader", "torchtitan", told_apart=True, workers=0),
    Case("TorchTitan's loader, 2 worker processes", "torchtitan", told_apart=True),
)

SIZES = {
    "accelerator": {"flavor": "1B", "seq_len": 4096, "batch_size": 4, "warmup": 10, "steps": 20},
    "cpu": {"flavor": "debugmodel", "seq_len": 128, "batch_size": 2, "warmup": 1, "steps": 4},
}
"""Defaults of the options, by device."""


def main() -> None:
    """Measure every case and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = read_options(sys.argv[1:])
    if options.case is not None:
        found = measure(CASES[options.case], options)
        options.output.write_text(json.dumps(found))
        return
    from blendtitan.titan import cpu

    if options.device != "cpu" and cpu.is_used():
        sys.exit("No accelerator was found. A trial run on the CPU: --device cpu")
    # A CPU's attention has no masks, so there is no intra-document masking.
    cases = [
        (number, case)
        for number, case in enumerate(CASES)
        if options.device != "cpu" or case.loader == "torchtitan" or not case.told_apart
    ]
    found = {}
    for number, case in cases:
        logger.info("%s ...", case.name)
        found[case.name] = in_own_process(number, options)
    text = report(found, options)
    output = options.output or ROOT / "benchmarks" / file_name(found, date.today())
    output.write_text(text)
    logger.info("%s\nThe report is in %s", text, output)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, sizes completed."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo", help="made by the demo")
    parser.add_argument("--output", type=Path, help="the report (default: in benchmarks/)")
    parser.add_argument("--device", choices=SIZES, default="accelerator")
    parser.add_argument("--model", default="llama3")
    parser.add_argument("--flavor", help="size of the model")
    parser.add_argument("--seq-len", type=int)
    parser.add_argument("--batch-size", type=int, help="samples of a step")
    parser.add_argument("--warmup", type=int, help="steps that are not measured")
    parser.add_argument("--steps", type=int, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, size in SIZES[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    for name in ("file_list.txt", "text", "tokenizer"):
        if not (options.data / name).exists():
            parser.error(f"{options.data / name} is missing: blendtitan demo --output makes it")
    return options


def in_own_process(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in a new process, since a trainer sets up the whole of its process."""
    names = ["data", "device", "model", *SIZES["cpu"], "rounds"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
        environment = {
            # One process, as torchrun would start it.
            **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": "0"},
            **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/datasets"},
        }
        if options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, __file__, *arguments, f"--case={number}", f"--output={output}"]
        subprocess.run(command, check=True, env=os.environ | environment)
        return json.loads(output.read_text())


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Train and take the time.

    Returns:
        ``device``, ``versions``, ``losses`` (of the steps that were logged) and, with one entry
        per round, ``step_ms`` and ``wait``, the share of time that was spent waiting for batches.
    """
    from blendtitan.titan import prepare

    prepare()  # before torchtitan is imported
    import torch
    import torchtitan
    from torchtitan.tools import utils

    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(case, options, folder)
        losses = recorded_losses(trainer)
        batches = Waited(trainer.batch_generator(trainer.dataloader))

        def seconds_of(steps: int) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                trainer.step += 1
                trainer.train_step(batches)
            utils.device_module.synchronize()
            return time.perf_counter() - start

        seconds_of(options.warmup)
        step_ms, wait = [], []
        for _ in range(options.rounds):
            batches.seconds = 0.0
            seconds = seconds_of(options.steps)
            step_ms.append(seconds * 1000 / options.steps)
            wait.append(batches.seconds / seconds)
        device = utils.device_module.get_device_name(trainer.device)
        trainer.close()
    torch.distributed.destroy_process_group()
    versions = {m.__name__: m.__version__ for m in (torch, torchtitan)}
    return {
        **{"device": device, "versions": versions, "losses": losses},
        **{"step_ms": step_ms, "wait": wait},
    }


class Waited(Iterator[Any]):
    """The same batches. ``seconds`` that each was waited for are added up."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __next__(self) -> Any:
        """The next batch."""
        start = time.perf_counter()
        batch = next(self._batches)
        self.seconds += time.perf_counter() - start
        return batch


def recorded_losses(trainer: Any) -> list[float]:
    """The losses that the trainer will log, to be filled while it trains."""
    losses: list[float] = []
    log = trainer.metrics_processor.log

    def recording(step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        losses.append(global_avg_loss)
        log(step, global_avg_loss, *args, **kwargs)

    trainer.metrics_processor.log = recording
    return losses


def build_trainer(case: Case, options: argparse.Namespace, folder: str) -> Any:
    """Build the trainer of a case. Settings that the cases share are set only here."""
    from torchtitan.components.loss import ChunkedLossWrapper
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.config import DebugConfig, ParallelismConfig, TrainingConfig

    from blendtitan.settings.batches import model_vocab_size
    from blendtitan.titan.cpu import default_spmd_backend
    from blendtitan.titan.metrics import LossMetrics
    from blendtitan.titan.model import build_model_spec
    from blendtitan.titan.tokenizer import BlendTokenizer
    from blendtitan.titan.trainer import BlendTrainer

    tokenizer = BlendTokenizer.Config(path=str(options.data / "tokenizer"))
    ids = tokenizer.build(tokenizer_path="").get_vocab_size()
    vocab_size = model_vocab_size(None, tokenizer_vocab_size=ids)
    on_cpu = options.device == "cpu"
    config = BlendTrainer.Config(
        model_spec=build_model_spec(options.model, options.flavor, vocab_size=vocab_size),
        loss=ChunkedLossWrapper.Config(loss_fn=cross_entropy(case, vocab_size)),
        dump_folder=folder,
        tokenizer=tokenizer,
        dataloader=loader_of(case, options),
        optimizer=default_adamw(lr=3e-4),
        training=TrainingConfig(
            seq_len=options.seq_len,
            local_batch_size=options.batch_size,
            global_batch_size=options.batch_size,
            steps=1_000_000,
            mixed_precision_param="float32" if on_cpu else "bfloat16",
        ),
        parallelism=ParallelismConfig(spmd_backend=default_spmd_backend()),
        debug=DebugConfig(seed=42),
        metrics=LossMetrics.Config(log_freq=min(10, options.steps)),
    )
    return config.build()


def loader_of(case: Case, options: argparse.Namespace) -> Any:
    """The loader's configuration."""
    from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

    from blendtitan.titan.dataloader import BlendCorpusDataLoader

    if case.loader == "blend":
        return BlendCorpusDataLoader.Config(
            data_file_list=str(options.data / "file_list.txt"),
            num_workers=case.workers,
            provide_attention_mask=case.told_apart,
            max_epochs=0,
        )
    return HuggingFaceTextDataLoader.Config(
        dataset="c4_test",  # the one that reads local files
        dataset_path=str(options.data / "text"),
        num_workers=case.workers,
        persistent_workers=case.workers > 0,
        pin_memory=options.device != "cpu",
    )


def cross_entropy(case: Case, vocab_size: int) -> Any:
    """TorchTitan's loss, under another name where the losses of corpora shall not be kept."""
    from torchtitan.components.loss import CrossEntropyLoss

    class UnsplitCrossEntropyLoss(CrossEntropyLoss):
        @dataclass(kw_only=True, slots=True)
        class Config(CrossEntropyLoss.Config):
            pass

    kind = CrossEntropyLoss if case.corpus_losses else UnsplitCrossEntropyLoss
    return kind.Config(global_vocab_size=vocab_size)


def report(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """The Markdown report."""
    one = next(iter(found.values()))
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    on_cpu = options.device == "cpu"
    attention = (
        "On a CPU, attention is SDPA, which has no masks: no case has intra-document masking."
        if on_cpu
        else "Attention is FlexAttention, with the block-causal masks of intra-document masking, "
        "which TorchTitan's loader always uses."
    )
    sizes = [f"{name.replace('_', '-')} {getattr(options, name)}" for name in SIZES["cpu"]]
    lines = [
        f"# A blend and TorchTitan's loader on {one['device']}",
        "",
        f"{options.model} {', '.join(sizes)}, rounds {options.rounds}. {versions}. {attention}",
        "",
        "All cases train the same model, from the same weights, on the same text, which "
        "TorchTitan's loader tokenises while it trains and takes file by file, so that losses of "
        "the two loaders are not to be compared. Waiting is the share of a round's time in which "
        "the training thread had no batch. Medians of the rounds, with the least and the largest.",
        "",
        f"Made by `{COMMAND} {command_line(options)}`.",
        "",
        "| case | ms per step | waiting for data | tokens per second | loss: first, last |",
        "|---|---|---|---|---|",
        *(row(name, case, options) for name, case in found.items()),
        "",
        "Milliseconds per step, round by round:",
        "",
        *(
            f"- {name}: {', '.join(f'{value:.2f}' for value in case['step_ms'])}"
            for name, case in found.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def row(name: str, case: dict[str, Any], options: argparse.Namespace) -> str:
    """A row of the report's table."""
    tokens = options.batch_size * options.seq_len / statistics.median(case["step_ms"]) * 1000
    cells = [
        name,
        spread(case["step_ms"], ".1f"),
        spread(case["wait"], ".2%"),
        f"{tokens:,.0f}",
        f"{case['losses'][0]:.4f}, {case['losses'][-1]:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], form: str) -> str:
    """Median, minimum and maximum."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def command_line(options: argparse.Namespace) -> str:
    """The options that matter to a reader who wants the same."""
    names = ["device", "model", *SIZES["cpu"], "rounds"]
    return " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in names)


def file_name(found: dict[str, dict[str, Any]], day: date) -> str:
    """``gpu_check_nvidia_h100_202611.md``."""
    device = next(iter(found.values()))["device"]
    slug = re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
    return f"gpu_check_{slug}_{day:%Y%m}.md"


if __name__ == "__main__":
    main()
