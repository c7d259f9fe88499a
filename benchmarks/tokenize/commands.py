"""What is measured: our command, a peer's, and the libraries alone."""

from dataclasses import dataclass, field
from pathlib import Path

from real_text import LARGE_REPEATS, Text

HERE = Path(__file__).parent
OURS = (
    ("ours", "reference", 1),
    ("ours", "reference", 2),
    ("ours", "fast", 1),
    ("ours", "fast", 2),
    ("ours on 5x the text", "fast", 1),
    ("ours on 5x the text", "fast", 2),
    ("ours on one document", "fast", 1),
)
"""Input, tier and workers."""

LIMITS = (("sp", "sentencepiece"), ("sp", "gigatoken"), ("bpe", "tokenizers"), ("bpe", "gigatoken"))


@dataclass(frozen=True, eq=False)
class Command:
    """A command line and what its rows in the report are called."""

    name: str
    tokenizer: str
    workers: int
    line: list[str]
    num_bytes: int
    output: Path | None = None
    """Folder that it writes, deleted before each run."""

    own_clock: bool = False
    """Whether it prints the seconds that count: those of the library alone."""

    environment: dict[str, str] = field(default_factory=dict)


def all_commands(
    text: Text, tokenizers: dict[str, Path], pythons: dict[str, Path], work: Path
) -> list[Command]:
    """Every command of a round."""
    commands: list[Command] = []
    blendtitan = str(pythons["ours"].parent / "blendtitan")
    inputs = {
        "ours": (text.path, text.num_bytes),
        "ours on 5x the text": (text.large, text.num_bytes * LARGE_REPEATS),
        "ours on one document": (text.first, text.first.stat().st_size),
    }
    for tokenizer, path in tokenizers.items():
        for name, tier, workers in OURS:
            input_path, num_bytes = inputs[name]
            output = work / "out" / f"{tokenizer}_{name.replace(' ', '_')}_{tier}_{workers}"
            line = [
                *(blendtitan, "tokenize", str(input_path), "--output", str(output)),
                *("--tokenizer", str(path), "--tokenizer-tier", tier, "--workers", str(workers)),
            ]
            commands.append(Command(f"{name}, {tier}", tokenizer, workers, line, num_bytes, output))
    return commands + _peers(text, tokenizers, pythons, work) + _limits(text, tokenizers, pythons)


def _peers(
    text: Text, tokenizers: dict[str, Path], pythons: dict[str, Path], work: Path
) -> list[Command]:
    commands: list[Command] = []
    for workers in (1, 2):
        output = work / "out" / f"datatrove_{workers}"
        line = [
            *(str(pythons["peer"]), str(HERE / "datatrove_peer.py"), str(text.halves)),
            *(str(output), str(tokenizers["bpe"]), str(workers)),
        ]
        commands.append(Command("datatrove", "bpe", workers, line, text.num_bytes, output))
    return commands


def _limits(text: Text, tokenizers: dict[str, Path], pythons: dict[str, Path]) -> list[Command]:
    """The libraries alone: in one process, and the fast one in two at once."""
    commands: list[Command] = []
    one_thread = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    for name, library in LIMITS:
        for processes in (1, 2) if library == "gigatoken" else (1,):
            line = [str(pythons["ours"]), str(HERE / "library_alone.py"), library]
            line += [str(tokenizers[name]), str(text.path), str(processes)]
            commands.append(
                Command(
                    *(f"{library} alone", name, processes, line, text.num_bytes * processes),
                    own_clock=True,
                    environment=one_thread,
                )
            )
    return commands
