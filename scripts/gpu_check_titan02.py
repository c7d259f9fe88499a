"""Measure training with TorchTitan 0.2 on one accelerator: our loader beside TorchTitan's own.

The stages run in order of their value, each in its own process. The report is rewritten after every
stage, and a stage that fails or runs out of time is reported with what it measured until then.

    compiled  a model trains with torch.compile, in rounds that take turns between our loader, our
              loader without losses per corpus, TorchTitan's loader, and one batch over and over
    copies    the loaders alone; pinned memory, and copies that overlap with computing
    resume    a run that is killed by SIGKILL in the middle of a step and resumed, beside an
              uninterrupted one: digests of all batches, and losses, step by step
    eager     as `compiled`, without torch.compile of the model
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_check import COMMAND, ROOT, spread  # the script beside this one

STAGES = {"compiled": 260, "copies": 60, "resume": 150, "eager": 150}
"""Stages, and most seconds that each may take on an accelerator."""

SIZES: dict[str, dict[str, Any]] = {
    "accelerator": {
        **{"flavor": "1B", "vocab_size": 32000, "seq_len": 4096, "batch_size": 4},
        **{"warmup": 3, "steps": 10, "rounds": 4},
    },
    "cpu": {
        **{"flavor": "debugmodel", "vocab_size": 4096, "seq_len": 64, "batch_size": 2},
        **{"warmup": 1, "steps": 2, "rounds": 2},
    },
}
"""Defaults of the options, by device."""

OURS = "our loader"
PLAIN = "our loader, without losses per corpus"
THEIRS = "TorchTitan's loader"
WORKERS = "TorchTitan's loader, 2 worker processes"
SAME = "one batch over and over"

RESUME_STEPS, SAVED_EVERY, KILLED_AT = 20, 5, 13

logger = logging.getLogger("gpu_check")

Found = dict[str, Any]


def main() -> None:
    """Measure every stage and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = read_options(sys.argv[1:])
    if options.child is not None:
        CHILDREN[options.child](options)
        return
    start = time.monotonic()
    found: Found = {}
    for stage in options.stages:
        left = options.minutes * 60 - (time.monotonic() - start)
        if left < 20:
            found[stage] = {"error": "no time was left"}
        else:
            logger.info("%s ...", stage)
            slower = 3 if options.device == "cpu" else 1
            found[stage] = run_stage(stage, options, min(left, STAGES[stage] * slower))
        write_report(found, options)
    logger.info("%s\nThe report is in %s", report(found, options), options.output)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, sizes completed."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo", help="made by the demo")
    parser.add_argument("--output", type=Path, help="the report (default: in benchmarks/)")
    parser.add_argument("--device", choices=SIZES, default="accelerator")
    parser.add_argument("--minutes", type=float, default=7.5, help="most time for all stages")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--attention", choices=("flex", "sdpa"), help="default: flex; cpu: sdpa")
    parser.add_argument("--autotune", action="store_true", help="tune FlexAttention's kernels")
    parser.add_argument("--flavor", help="size of the llama3 model")
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--seq-len", type=int)
    parser.add_argument("--batch-size", type=int, help="samples of a step")
    parser.add_argument("--warmup", type=int, help="steps that are not measured")
    parser.add_argument("--steps", type=int, help="steps of a round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-at", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, size in SIZES[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    if options.attention is None:
        options.attention = "sdpa" if options.device == "cpu" else "flex"
    for name in ("file_list.txt", "text", "tokenizer"):
        if not (options.data / name).exists():
            parser.error(f"{options.data / name} is missing: blendtitan demo --output makes it")
    if options.output is None:
        options.output = ROOT / f"benchmarks/gpu_check_titan02_{date.today():%Y%m}.md"
    return options


# Stages, as the main process starts them.


def run_stage(stage: str, options: argparse.Namespace, seconds: float) -> Found:
    """The results of a stage, with ``error`` if it did not finish."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if stage == "resume":
            found = compared_runs(options, folder, seconds)
        else:
            found = finished(start_child(stage, options, folder), folder, seconds)
            left = seconds - (time.monotonic() - start)
            smaller = with_less(options, found)
            if smaller is not None and left > 45:
                logger.info("%s failed, once more: %s", stage, found["error"])
                again = finished(start_child(stage, smaller, folder), folder, left)
                found = again | {"first_error": found["error"]}
    found["seconds"] = time.monotonic() - start
    return found


def with_less(options: argparse.Namespace, found: Found) -> argparse.Namespace | None:
    """Options for another try of a stage that failed early. None: there is none."""
    error = found.get("error", "")
    if "out of memory" in error.lower() and options.batch_size > 1:
        return argparse.Namespace(**vars(options) | {"batch_size": options.batch_size // 2})
    is_untried = "exit code" in error and not any(
        values["step_ms"] for values in found.get("sources", {}).values()
    )
    if is_untried and options.attention == "flex":
        return argparse.Namespace(**vars(options) | {"attention": "sdpa"})
    return None


def start_child(
    child: str, options: argparse.Namespace, folder: Path, *more: str
) -> subprocess.Popen[bytes]:
    """Start a new process, because a trainer changes the whole of its process."""
    names = ["data", "device", "attention", *SIZES["cpu"]]
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    arguments += ["--autotune"] if options.autotune else []
    environment = {
        # One process, as torchrun would start it.
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": "0"},
        **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/datasets"},
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    if options.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, __file__, *arguments, *more]
    command += [f"--child={child}", f"--folder={folder}"]
    with options.output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=log,
            stderr=(folder / f"{child}.err").open("wb"),
            start_new_session=True,
        )


def finished(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> Found:
    """The output of a process until it ended or its time was up."""
    error = None
    try:
        code = process.wait(max(1, seconds))
        if code:
            lines = [f for f in folder.glob("*.err") if f.stat().st_size]
            text = "\n".join(f.read_text(errors="replace") for f in lines)
            error = f"exit code {code}: " + "\n".join(text.strip().splitlines()[-12:])
    except subprocess.TimeoutExpired:
        error = f"not finished after {seconds:.0f} s"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    path = folder / "found.json"
    found: Found = json.loads(path.read_text()) if path.exists() else {}
    return found if error is None else found | {"error": error}


def compared_runs(options: argparse.Namespace, folder: Path, seconds: float) -> Found:
    """Compare an uninterrupted run with one that is killed and resumed."""
    start = time.monotonic()
    small = argparse.Namespace(**vars(options) | {"flavor": "debugmodel"})
    if options.device != "cpu":
        small.seq_len = min(options.seq_len, 1024)

    def begin(name: str, run: str, die_at: int = 0) -> subprocess.Popen[bytes]:
        own = folder / name
        own.mkdir()
        record = f"--record={folder / name / 'record.jsonl'}"
        options_of_run = [record, f"--die-at={die_at}", f"--output={folder / run}"]
        return start_child("recorded", small, own, *options_of_run)

    def left() -> float:
        return seconds - (time.monotonic() - start)

    whole, killed = begin("whole", "run_whole"), begin("killed", "run_killed", KILLED_AT)
    ends = [finished(whole, folder / "whole", left()), finished(killed, folder / "killed", left())]
    if killed.returncode == -signal.SIGKILL and "not finished" not in ends[1].get("error", ""):
        ends[1] = {}
        ends.append(finished(begin("resumed", "run_killed"), folder / "resumed", left()))
    records = {
        name: read_record(folder / name / "record.jsonl") for name in ("whole", "killed", "resumed")
    }
    found = compared(records)
    errors = [end["error"] for end in ends if "error" in end]
    return found | ({"error": errors[0]} if errors else {})


def read_record(path: Path) -> dict[int, Found]:
    """Step to what a run noted of it. A last line that was cut off is left out."""
    steps: dict[int, Found] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        steps.setdefault(entry["step"], {}).update(entry)
    return steps


def compared(records: dict[str, dict[int, Found]]) -> Found:
    """Whether steps of the killed run were those of the whole run, before and after the kill."""
    whole, found = records["whole"], {}
    for name in ("killed", "resumed"):
        steps = sorted(records[name])
        pairs = [(whole.get(step, {}), records[name][step]) for step in steps]
        losses = [(a["loss"], b["loss"]) for a, b in pairs if "loss" in a and "loss" in b]
        found[name] = {
            "first": steps[0] if steps else None,
            "last": steps[-1] if steps else None,
            "batches": len(pairs),
            "same_batches": sum(a.get("digest") == b.get("digest") for a, b in pairs),
            "losses": len(losses),
            "same_losses": sum(a == b for a, b in losses),
            "largest_difference": max((abs(a - b) for a, b in losses), default=None),
        }
    return found


# What the processes do.


def build_trainer(options: argparse.Namespace, more: Sequence[str] = ()) -> Any:
    """Import torchtitan and build the trainer of a stage."""
    from blendtitan.titan import prepare

    prepare()
    from torchtitan.config import ConfigManager
    from torchtitan.tools.logging import init_logger
    from torchtitan.train import Trainer

    init_logger()
    on_cpu = options.device == "cpu"
    if options.attention == "flex" and not options.autotune:
        use_untuned_flex()
    settings: dict[str, Any] = {
        "job.custom_config_module": "blendtitan.titan02.config",
        "experimental.custom_import": "blendtitan.titan02.models",
        "job.dump_folder": options.folder / "outputs",
        "model.name": "llama3",
        "model.flavor": options.flavor,
        "model.vocab_size": options.vocab_size,
        "model.attn_backend": options.attention,
        "model.hf_assets_path": options.data / "tokenizer",
        "training.dataset": "blendcorpus",
        "training.seq_len": options.seq_len,
        "training.local_batch_size": options.batch_size,
        "training.steps": 1_000_000,
        "training.mixed_precision_param": "float32" if on_cpu else "bfloat16",
        "blendcorpus.data_file_list": options.data / "file_list.txt",
        "blendcorpus.provide_attention_mask": options.attention == "flex",
        "blendcorpus.max_epochs": 0.0,
        "activation_checkpoint.mode": "none",
        "metrics.log_freq": 10,
        "debug.seed": 42,
    }
    words = [word for key, value in settings.items() for word in words_of(key, value)]
    return Trainer(ConfigManager().parse_args([*words, *more]))


def words_of(key: str, value: object) -> list[str]:
    """A setting on TorchTitan's command line."""
    if isinstance(value, bool):
        section, _, name = key.partition(".")
        return [f"--{key}" if value else f"--{section}.no_{name}"]
    return [f"--{key}", str(value)]


def use_untuned_flex() -> None:
    """Compile FlexAttention without trying out kernels, which takes minutes.

    Runs that are compared step by step must not choose their kernels by a clock, either.
    """
    import torch
    from torch.nn.attention.flex_attention import flex_attention
    from torchtitan.models import attention

    attention.FlexAttentionWrapper._compiled_flex_attn = torch.compile(flex_attention)


def measure_compiled(options: argparse.Namespace) -> None:
    """Train with torch.compile, with all sources of batches."""
    measure(options, ["--compile.enable"], (OURS, PLAIN, THEIRS, WORKERS, SAME))


def measure_eager(options: argparse.Namespace) -> None:
    """Train without torch.compile of the model, with a choice of sources."""
    measure(options, [], (OURS, THEIRS, SAME))


@dataclass
class Source:
    """Batches that are trained on, and what was measured with them."""

    batches: Iterator[Any]
    should_log: Callable[[int], bool]
    keeps_corpora: bool = False
    step: int = 0
    waited: float = 0.0


def measure(options: argparse.Namespace, more: Sequence[str], names: Sequence[str]) -> None:
    """Train in rounds that take turns between sources of batches; take the time."""
    start = time.monotonic()
    trainer = build_trainer(options, more)
    built = time.monotonic() - start
    import torch
    from torchtitan.tools import utils

    processor = trainer.metrics_processor
    log = processor.log
    losses: list[float] = []

    def recording(step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        losses.append(global_avg_loss)
        log(step, global_avg_loss, *args, **kwargs)

    processor.log = recording
    sources: dict[str, Source] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            sources[name] = source_of(name, trainer, options)
        except Exception:  # one source that cannot be had must not hide the others
            failed[name] = traceback.format_exc(limit=-3)
    ids_of_rows = trainer.dataloader.corpus_ids

    def train(source: Source, steps: int) -> float:
        trainer.dataloader.corpus_ids = ids_of_rows if source.keeps_corpora else None
        processor.should_log = source.should_log
        trainer.step, source.waited = source.step, 0.0
        begun = time.perf_counter()
        for _ in range(steps):
            trainer.step += 1
            trainer.train_step(waited(source))
        utils.device_module.synchronize()
        source.step = trainer.step
        return time.perf_counter() - begun

    found: Found = {
        "device": processor.device_memory_monitor.device_name,
        "parameters": sum(p.numel() for p in trainer.model_parts[0].parameters()),
        "batch_size": options.batch_size,
        "attention": options.attention,
        "build_s": built,
        "warmup_s": {},
        "sources": {name: {"step_ms": [], "wait": []} for name in names},
        "failed": failed,
        "losses": losses,
    }
    tokens = options.batch_size * options.seq_len
    for name, source in list(sources.items()):
        try:
            found["warmup_s"][name] = train(source, options.warmup)
        except Exception:
            if name == OURS:
                raise
            failed[name] = traceback.format_exc(limit=-3)
            del sources[name]
        save(found, options)
    for _ in range(options.rounds):
        for name, source in sources.items():
            seconds = train(source, options.steps)
            here = found["sources"][name]
            here["step_ms"].append(seconds * 1000 / options.steps)
            here["wait"].append(source.waited / seconds)
            rate = tokens * options.steps / seconds
            flops = processor.num_flops_per_token * rate
            here.setdefault("tflops", []).append(flops / 1e12)
            here.setdefault("mfu", []).append(flops / processor.gpu_peak_flops)
        if torch.cuda.is_available():
            found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        save(found, options)
    # Workers of TorchTitan's loader would wait for their process group.
    os._exit(0)


def source_of(name: str, trainer: Any, options: argparse.Namespace) -> Source:
    """One of the sources of batches."""
    hooked = trainer.metrics_processor.should_log

    def every_tenth(step: int) -> bool:
        return step % 10 == 0

    if name in (OURS, PLAIN):
        loader = trainer.dataloader if name == OURS else twin(trainer, options)
        batches = trainer.batch_generator(loader)
        should_log = hooked if name == OURS else every_tenth
        return Source(batches, should_log, keeps_corpora=name == OURS)
    if name == SAME:
        return Source(trainer.batch_generator(the_same(trainer)), every_tenth)
    return Source(trainer.batch_generator(their_loader(name, trainer, options)), every_tenth)


def twin(trainer: Any, options: argparse.Namespace) -> Any:
    """Our loader once more, which does not name corpora."""
    from blendtitan.titan02.data import Titan02DataLoader

    return Titan02DataLoader(
        trainer.job_config,
        trainer.dataloader.dataset,
        dp_world_size=1,
        dp_rank=0,
        step_of_run=lambda: 0,
    )


def their_loader(name: str, trainer: Any, options: argparse.Namespace) -> Any:
    """TorchTitan's loader, on the text that the shards were made from."""
    import copy

    from torchtitan.models.llama3 import get_train_spec

    job = copy.deepcopy(trainer.job_config)
    job.training.dataset = "c4_test"  # the one that reads local files
    job.training.dataset_path = str(options.data / "text")
    job.training.dataloader.pin_memory = options.device != "cpu"
    if name == WORKERS:
        job.training.dataloader.num_workers = 2
        job.training.dataloader.persistent_workers = True
    return get_train_spec().build_dataloader_fn(
        dp_world_size=1, dp_rank=0, tokenizer=trainer.tokenizer, job_config=job
    )


def the_same(trainer: Any) -> Iterator[Any]:
    """The first batch of our loader over and over, in a new dict each time."""
    batch = trainer.dataloader._loader.batch_at(0)
    while True:
        yield {"input": batch.input_ids}, batch.labels


def waited(source: Source) -> Iterator[Any]:
    """The batches of a source. The time that each was waited for is added up."""
    while True:
        start = time.perf_counter()
        batch = next(source.batches)
        source.waited += time.perf_counter() - start
        yield batch


def measure_copies(options: argparse.Namespace) -> None:
    """The loaders alone, and copies to the accelerator."""
    from types import SimpleNamespace

    from blendtitan.titan import prepare

    prepare()
    import torch

    from blendtitan import BlendConfig, DataLoader, build_datasets

    size = options.batch_size
    found: Found = {"alone": {}}
    for workers in (0, 2):
        config = BlendConfig(
            data_file_list=options.data / "file_list.txt",
            seq_length=options.seq_len,
            append_eod=False,
            num_workers=workers,
        )
        loader = DataLoader(build_datasets(config).train, size)
        name = "our loader" + (f", {workers} threads" if workers else ", in the calling thread")
        found["alone"][name] = rate_of(iter(loader), size * options.seq_len, 200)
        batch = next(iter(loader))
    found["is_pinned"] = batch.input_ids.is_pinned()
    save(found, options)
    if torch.cuda.is_available() and options.device != "cpu":
        found["copies"] = copies(batch)
        save(found, options)
    from torchtitan.config import ConfigManager

    from blendtitan.titan02.data import Titan02Tokenizer

    words = ["--job.custom_config_module", "blendtitan.titan02.config"]
    words += ["--model.hf_assets_path", str(options.data / "tokenizer")]
    words += ["--training.seq_len", str(options.seq_len)]
    job = ConfigManager().parse_args([*words, "--training.local_batch_size", str(size)])
    stub = SimpleNamespace(job_config=job, tokenizer=Titan02Tokenizer(job))
    for name in (THEIRS, WORKERS):
        batches = iter(their_loader(name, stub, options))
        next(batches)  # starts the workers
        found["alone"][name] = rate_of(batches, size * options.seq_len, 40)
        save(found, options)
    os._exit(0)


def rate_of(batches: Iterator[Any], tokens: int, count: int) -> float:
    """Tokens per second of a loader alone."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return tokens * count / (time.perf_counter() - start)


def copies(batch: Any) -> Found:
    """How long copies of a batch take, and how much of it computing hides. Milliseconds."""
    import torch

    count, products = 1000, 30
    pinned = [batch.input_ids.clone().pin_memory(), batch.labels.clone().pin_memory()]
    pageable = [tensor.clone() for tensor in pinned]
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()

    def copy(tensors: list[torch.Tensor], *, non_blocking: bool) -> None:
        with torch.cuda.stream(side):
            for _ in range(count):
                for tensor in tensors:
                    tensor.to("cuda", non_blocking=non_blocking)

    def compute() -> None:
        for _ in range(products):
            torch.matmul(matrix, matrix)

    def timed(*work: Callable[[], None]) -> float:
        times = []
        for _ in range(4):  # the first is a warm-up
            torch.cuda.synchronize()
            start = time.perf_counter()
            for each in work:
                each()
            torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1000)
        return statistics.median(times[1:])

    found: Found = {"count": count, "kib": sum(t.nbytes for t in pinned) / 1024}
    found["compute"] = timed(compute)
    for name, tensors, non_blocking in (
        ("pinned, not waited for", pinned, True),
        ("pinned, waited for", pinned, False),
        ("pageable", pageable, False),
    ):
        alone = timed(lambda t=tensors, n=non_blocking: copy(t, non_blocking=n))
        both = timed(compute, lambda t=tensors, n=non_blocking: copy(t, non_blocking=n))
        hidden = (found["compute"] + alone - both) / min(found["compute"], alone)
        found[name] = {"alone": alone, "both": both, "hidden": hidden}
    return found


def record_run(options: argparse.Namespace) -> None:
    """Train for ``RESUME_STEPS`` steps; note digests and losses; die where that is asked for."""
    options.folder = options.output
    more = ["--training.steps", str(RESUME_STEPS), "--metrics.log_freq", "1"]
    more += ["--checkpoint.enable", "--checkpoint.interval", str(SAVED_EVERY)]
    more += ["--debug.deterministic", "--debug.deterministic_warn_only"]
    trainer = build_trainer(options, more)
    generate, log = trainer.batch_generator, trainer.metrics_processor.log
    with options.record.open("w") as file:

        def note(**entry: Any) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        def noted(loader: Any) -> Iterator[Any]:
            for inputs, labels in generate(loader):
                digest = hashlib.sha256(inputs["input"].numpy().tobytes())
                digest.update(labels.numpy().tobytes())
                note(step=trainer.step, digest=digest.hexdigest())
                if trainer.step == options.die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield inputs, labels

        def logged(step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
            note(step=step, loss=global_avg_loss)
            log(step, global_avg_loss, *args, **kwargs)

        trainer.batch_generator, trainer.metrics_processor.log = noted, logged
        trainer.train()
        trainer.close()


CHILDREN = {
    "compiled": measure_compiled,
    "copies": measure_copies,
    "eager": measure_eager,
    "recorded": record_run,
}


def save(found: Found, options: argparse.Namespace) -> None:
    """Keep what was found so far, for a stage that does not come to its end."""
    path = options.folder / "found.json"
    path.with_suffix(".new").write_text(json.dumps(found))
    path.with_suffix(".new").replace(path)


# The report.


def write_report(found: Found, options: argparse.Namespace) -> None:
    """Write the report, and everything that was found beside it."""
    options.output.write_text(report(found, options))
    options.output.with_suffix(".json").write_text(json.dumps(found, indent=1))


def report(found: Found, options: argparse.Namespace) -> str:
    """The Markdown report."""
    device = next((f["device"] for f in found.values() if "device" in f), platform.processor())
    packages = ", ".join(f"{name} {version(name)}" for name in ("torchtitan", "torch", "numpy"))
    masks = "SDPA attention without intra-document masking"
    if options.attention == "flex":
        masks = "FlexAttention"
        masks += " with intra-document masking" + (
            ", its kernels tuned" if options.autotune else ", its kernels not tuned"
        )
    sizes = [f"{name.replace('_', '-')} {getattr(options, name)}" for name in SIZES["cpu"]]
    lines = [
        f"# Training with TorchTitan 0.2 on {device}",
        "",
        f"{packages}, Python {platform.python_version()}. One process, one device. llama3, "
        f"{', '.join(sizes)}; {masks}; no activation checkpointing.",
        "",
    ]
    for stage, one in found.items():
        lines += SECTIONS[stage](one, options)
        if "first_error" in one:
            lines += ["A first try failed:", "", "```", one["first_error"], "```", ""]
        if "error" in one:
            lines += ["This stage did not come to its end:", "", "```", one["error"], "```", ""]
        if "seconds" in one:
            lines += [f"The stage took {one['seconds']:.0f} s.", ""]
    lines += [f"Made by `{COMMAND} {command_line(options)}`."]
    return "\n".join(lines) + "\n"


def training_section(title: str, one: Found, options: argparse.Namespace) -> list[str]:
    """A table of step times."""
    lines = [f"## {title}", ""]
    if "sources" not in one:
        return lines
    attention = f", {one['attention']} attention" if one["attention"] != options.attention else ""
    memory = f", {one['memory_gib']:.1f} GiB at most" if "memory_gib" in one else ""
    lines += [
        f"{one['parameters'] / 1e9:.3f} B parameters, {one['batch_size']} samples of "
        f"{options.seq_len} tokens a step{attention}{memory}. The rounds take turns between the "
        f"rows, with one model. Medians of the rounds, with the least and the largest. Waiting is "
        f"the share of a round in which the training thread had no batch. A batch is asked for "
        f"while the device still computes, so that waiting costs a step only what outlasts that: "
        f"the last row shows what a step takes without any. Rows of the two loaders hold other "
        f"documents, and the last row is one batch: where documents are masked, the work of "
        f"attention differs between them. MFU is as TorchTitan counts it.",
        "",
        "| batches from | ms per step | waiting for data | tokens per second | TFLOP/s | MFU |",
        "|---|---|---|---|---|---|",
    ]
    tokens = one["batch_size"] * options.seq_len
    for name, values in one["sources"].items():
        if not values["step_ms"]:
            lines.append(f"| {name} | not measured | | | | |")
            continue
        cells = [
            name,
            spread(values["step_ms"], ".1f"),
            spread(values["wait"], ".2%"),
            f"{tokens / statistics.median(values['step_ms']) * 1000:,.0f}",
            f"{statistics.median(values['tflops']):.1f}",
            f"{statistics.median(values['mfu']):.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    warm = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in one["warmup_s"].items())
    losses = one["losses"]
    for name, error in one["failed"].items():
        lines += ["", f"{name} failed:", "", "```", error.strip(), "```"]
    lines += ["", f"Built in {one['build_s']:.1f} s; first steps: {warm}."]
    if losses:
        lines += [f"Loss: {losses[0]:.4f} in the first step logged, {losses[-1]:.4f} in the last."]
    return [*lines, ""]


def compiled_section(one: Found, options: argparse.Namespace) -> list[str]:
    """With torch.compile."""
    return training_section("With torch.compile", one, options)


def eager_section(one: Found, options: argparse.Namespace) -> list[str]:
    """Without it."""
    return training_section("Without torch.compile of the model", one, options)


def copies_section(one: Found, options: argparse.Namespace) -> list[str]:
    """The loaders alone, and copies."""
    lines = ["## The loaders alone, and copies", ""]
    if "alone" not in one:
        return lines
    lines += ["| loader | tokens per second |", "|---|---|"]
    lines += [f"| {name} | {rate:,.0f} |" for name, rate in one["alone"].items()]
    lines += ["", f"Our batches are {'' if one.get('is_pinned') else 'not '}in pinned memory."]
    found = one.get("copies")
    if found is None:
        return [*lines, ""]
    lines += [
        "",
        f"{found['count']} copies of a batch of {found['kib']:.0f} KiB to the device, on a stream "
        f"of their own, beside matrix products that take {found['compute']:.1f} ms alone:",
        "",
        "| memory | copies alone, ms | with the products, ms | hidden |",
        "|---|---|---|---|",
    ]
    for name, each in found.items():
        if isinstance(each, dict):
            cells = [name, f"{each['alone']:.1f}", f"{each['both']:.1f}", f"{each['hidden']:.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def resume_section(one: Found, options: argparse.Namespace) -> list[str]:
    """The killed run beside the whole one."""
    lines = [
        "## SIGKILL and resume",
        "",
        f"The debug model, {RESUME_STEPS} steps, a checkpoint every {SAVED_EVERY}; one run is "
        f"killed by SIGKILL when step {KILLED_AT} has its batch, and started again. Each step is "
        f"compared with that of a run without interruption.",
        "",
        "| run | steps | same batches | same losses, bit by bit | largest difference of a loss |",
        "|---|---|---|---|---|",
    ]
    for name in ("killed", "resumed"):
        each = one.get(name)
        if not each or each["first"] is None:
            lines.append(f"| {name} | none | | | |")
            continue
        cells = [
            name,
            f"{each['first']} to {each['last']}",
            f"{each['same_batches']} of {each['batches']}",
            f"{each['same_losses']} of {each['losses']}",
            f"{each['largest_difference']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


SECTIONS = {
    "compiled": compiled_section,
    "copies": copies_section,
    "resume": resume_section,
    "eager": eager_section,
}


def command_line(options: argparse.Namespace) -> str:
    """The options that matter to a reader who wants the same."""
    names = ["device", *SIZES["cpu"]]
    return " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in names)


if __name__ == "__main__":
    main()
