"""What the training loss of each corpus costs: step times with and without, side by side.

    python benchmarks/loss_per_corpus.py --rounds 40
    python benchmarks/loss_per_corpus.py --rounds 40 --parts

One trainer in one process takes the steps; what differs from one step to the next is whether
the losses of corpora are kept, reduced and logged. Each round has three steps in rotating order:
without, with, and without once more, which shows how much two equal steps differ here. Ratios
are of one round's steps, in time passed and in processor time of all threads, which a busy machine
disturbs less. ``--parts`` times what is added by itself: the loss forward and back against
TorchTitan's, and the sums by corpus of one micro batch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ARMS = ("without", "with", "without again")
LOSSES = ("chunked", "plain")
SEQ_LEN = 512
LOCAL_BATCH_SIZE = 2
GLOBAL_BATCH_SIZE = 4
LOG_FREQ = 10
EOD = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--corpora", type=int, default=100)
    parser.add_argument("--vocab-sizes", type=int, nargs="+", default=[4096, 32000])
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from blendtitan.titan import prepare

    prepare()  # before torchtitan is imported

    if options.case:
        loss, vocab_size = options.case
        measure(loss, int(vocab_size), rounds=options.rounds, corpora=options.corpora)
        return
    if options.parts:
        measure_parts(options.vocab_sizes, rounds=options.rounds, corpora=options.corpora)
        return
    print("| loss | vocabulary | ms | arm | time / without | processor time / without |")
    print("|---|---|---|---|---|---|", flush=True)
    for vocab_size in options.vocab_sizes:
        for loss in LOSSES:
            # A process of its own: a trainer sets up the whole process.
            arguments = ["--rounds", f"{options.rounds}", "--corpora", f"{options.corpora}"]
            command = [sys.executable, __file__, *arguments, "--case", loss, f"{vocab_size}"]
            subprocess.run(command, check=True)


def measure(loss: str, vocab_size: int, *, rounds: int, corpora: int) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    with tempfile.TemporaryDirectory() as name:
        trainer = build_trainer(Path(name), loss, vocab_size, corpora)
        passed: dict[str, list[float]] = {arm: [] for arm in ARMS}
        used: dict[str, list[float]] = {arm: [] for arm in ARMS}
        batches = trainer.batch_generator(trainer.dataloader)
        switch = switch_of(trainer)
        for number in range(-3, rounds):  # three rounds to warm up
            for i in range(len(ARMS)):
                arm = ARMS[(number + i) % len(ARMS)]
                switch(arm == "with")
                trainer.step = number + 4
                start, start_used = time.perf_counter(), time.process_time()
                trainer.train_step(batches)
                if number >= 0:
                    passed[arm].append(time.perf_counter() - start)
                    used[arm].append(time.process_time() - start_used)
        trainer.close()
    for arm in ARMS[1:]:
        milliseconds = statistics.median(passed[arm]) * 1000
        ratios = [ratio(times[arm], times["without"]) for times in (passed, used)]
        cells = [loss, f"{vocab_size:,}", f"{milliseconds:.0f}", arm, *ratios]
        print(f"| {' | '.join(cells)} |", flush=True)


def measure_parts(vocab_sizes: list[int], *, rounds: int, corpora: int) -> None:
    import torch
    from torchtitan.components.loss import cross_entropy_loss

    from blendtitan.corpus_losses import CorpusLosses, counted_labels
    from blendtitan.titan.losses import row_cross_entropy

    print("| vocabulary | TorchTitan's loss, ms | ours / TorchTitan's | sums by corpus, ms |")
    print("|---|---|---|---|")
    losses = CorpusLosses(corpora, "cpu")
    corpus_ids = torch.arange(LOCAL_BATCH_SIZE)
    for vocab_size in vocab_sizes:
        pred = torch.randn(LOCAL_BATCH_SIZE, SEQ_LEN, vocab_size, requires_grad=True)
        labels = torch.randint(0, vocab_size, (LOCAL_BATCH_SIZE, SEQ_LEN))
        rows = row_cross_entropy(pred, labels)[1]
        times = {"theirs": [], "ours": [], "sums": []}
        functions = {
            "theirs": lambda: cross_entropy_loss(pred, labels).backward(),  # noqa: B023
            "ours": lambda: row_cross_entropy(pred, labels)[0].backward(),  # noqa: B023
            "sums": lambda: losses.add(corpus_ids, rows, counted_labels(labels)),  # noqa: B023
        }
        for number in range(-3, rounds):
            for name, function in functions.items():
                pred.grad = None
                start = time.perf_counter()
                function()
                if number >= 0:
                    times[name].append(time.perf_counter() - start)
        theirs, sums = (statistics.median(times[name]) * 1000 for name in ("theirs", "sums"))
        cells = [f"{vocab_size:,}", f"{theirs:.1f}", ratio(times["ours"], times["theirs"])]
        print(f"| {' | '.join(cells)} | {sums:.3f} |", flush=True)


def ratio(seconds: list[float], base: list[float]) -> str:
    """Median and quartiles of the ratios of the rounds."""
    low, middle, high = np.quantile(np.array(seconds) / np.array(base), [0.25, 0.5, 0.75])
    return f"{middle:.4f} ({low:.4f} to {high:.4f})"


def build_trainer(folder: Path, loss: str, vocab_size: int, corpora: int) -> Any:
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.components.tokenizer import BaseTokenizer
    from torchtitan.config import ParallelismConfig, TrainingConfig

    from blendtitan.titan.cpu import default_spmd_backend
    from blendtitan.titan.dataloader import BlendCorpusDataLoader
    from blendtitan.titan.metrics import LossMetrics
    from blendtitan.titan.model import build_model_spec
    from blendtitan.titan.trainer import BlendTrainer

    class NoTokenizer(BaseTokenizer):
        """The data is tokens already."""

        @dataclass(kw_only=True, slots=True)
        class Config(BaseTokenizer.Config):
            """No settings."""

        def __init__(self, config: Config, *, tokenizer_path: str) -> None:
            super().__init__()
            self.eos_id = EOD

        def encode(self, *args: Any, **kwargs: Any) -> list[int]:
            raise NotImplementedError

        def decode(self, *args: Any, **kwargs: Any) -> str:
            raise NotImplementedError

        def get_vocab_size(self) -> int:
            return vocab_size

    cross_entropy = CrossEntropyLoss.Config(global_vocab_size=vocab_size)
    return BlendTrainer.Config(
        model_spec=build_model_spec("llama3", "debugmodel", vocab_size=vocab_size),
        loss=ChunkedLossWrapper.Config(loss_fn=cross_entropy)
        if loss == "chunked"
        else cross_entropy,
        dump_folder=str(folder / "out"),
        tokenizer=NoTokenizer.Config(),
        dataloader=BlendCorpusDataLoader.Config(
            data_file_list=str(write_corpora(folder, vocab_size, corpora)), max_epochs=0
        ),
        optimizer=default_adamw(lr=1e-4),
        training=TrainingConfig(
            seq_len=SEQ_LEN,
            local_batch_size=LOCAL_BATCH_SIZE,
            global_batch_size=GLOBAL_BATCH_SIZE,
            steps=1_000_000,
            mixed_precision_param="float32",
        ),
        parallelism=ParallelismConfig(spmd_backend=default_spmd_backend()),
        activation_checkpoint=None,
        metrics=LossMetrics.Config(log_freq=LOG_FREQ, enable_tensorboard=True),
    ).build()


def switch_of(trainer: Any) -> Any:
    """A function that switches the losses of corpora on or off."""
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss

    kept, rows = trainer.loss_fn, trainer._rows
    cross_entropy = CrossEntropyLoss.Config(global_vocab_size=trainer.model_config.vocab_size)
    if isinstance(kept, ChunkedLossWrapper):
        plain = ChunkedLossWrapper.Config(num_chunks=kept.num_chunks, loss_fn=cross_entropy).build()
        plain.set_lm_head(kept.lm_head)
    else:
        plain = cross_entropy.build()

    def switch(on: bool) -> None:
        trainer.loss_fn, trainer._rows = (kept, rows) if on else (plain, None)

    return switch


def write_corpora(folder: Path, vocab_size: int, corpora: int) -> Path:
    from blendtitan.storage.writer import ShardWriter

    lines = []
    for number in range(corpora):
        rng = np.random.default_rng(number)
        with ShardWriter.create(folder / f"corpus_{number}", dtype=np.dtype("<u2")) as writer:
            for document in random_documents(rng, vocab_size):
                writer.add_document(document)
        lines.append(f"{number + 1} corpus_{number} corpus_{number}")
    path = folder / "file_list.txt"
    path.write_text("\n".join(lines))
    return path


def random_documents(rng: np.random.Generator, vocab_size: int) -> Iterator[np.ndarray]:
    for _ in range(100):
        yield np.append(rng.integers(1, vocab_size, 200), EOD)


if __name__ == "__main__":
    main()
