"""What is measured: our command, a peer's, and the libraries alone."""

from dataclasses import dataclass, field
from pathlib import Path

from real_text import Text

HERE = Path(__file__).parent
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
    for name, path in tokenizers.items():
        for tier in ("reference", "fast"):
            for workers in (1, 2):
                output = work / "out" / f"{name}_{tier}_{workers}"
                line = [
                    *(str(pythons["ours"].parent / "blendtitan"), "tokenize", str(text.path)),
                    *("--output", str(output), "--tokenizer", str(path)),
                    *("--tokenizer-tier", tier, "--workers", str(workers)),
                ]
                commands.append(
                    Command(f"ours, {tier}", name, workers, line, text.num_bytes, output)
                )
    for workers in (1, 2):
        output = work / "out" / f"datatrove_{workers}"
        line = [
            *(str(pythons["peer"]), str(HERE / "datatrove_peer.py"), str(text.halves)),
            *(str(output), str(tokenizers["bpe"]), str(workers)),
        ]
        commands.append(Command("datatrove", "bpe", workers, line, text.num_bytes, output))
    for name, library in LIMITS:
        line = [str(pythons["ours"]), str(HERE / "library_alone.py"), library]
        line += [str(tokenizers[name]), str(text.path)]
        one_thread = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
        commands.append(
            Command(
                *(f"{library} alone", name, 1, line, text.num_bytes),
                own_clock=True,
                environment=one_thread,
            )
        )
    return commands
