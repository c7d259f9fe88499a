"""Architecture: data flows one way; a layer imports only what stands to its left."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/blendtitan"

NUMPY = {"numpy"}
BASE = {"errors", "visible", "files", "retries", "json_files"}
STORAGE = BASE | {"config", "identity", "storage"}
ORDER = {"errors", "config", "order"}
DATASET = STORAGE | ORDER | {"dataset"}
HISTORY = DATASET | {"history"}
LOADER = HISTORY | {"state", "loader"}

TITAN = LOADER | {
    *(
        "corpus_losses",
        "corpus_progress",
        "metric_names",
        "original",
        "batch_schedule",
        "placed_loader",
        "run_changes",
        "settings",
    ),
    *("balance", "claims", "staging", "stop_signals", "tokenizers", "tokenizer_check", "titan"),
}

# Layer: what it may import of blendtitan, and of other packages.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "visible": (set(), set()),
    "files": ({"retries", "remote"}, {"msgspec"}),
    "remote": ({"errors", "files"}, {"obstore"}),  # imported by `files` when there is a URL
    "retries": ({"visible"}, set()),
    "json_files": ({"files"}, {"msgspec"}),
    "errors": ({"visible"}, set()),
    "config": ({"errors", "files", "original_settings"}, set()),
    "original_settings": ({"config", "errors"}, set()),  # imported by `config` for that order
    "identity": (set(), set()),
    "metric_names": (set(), set()),
    "storage": (STORAGE | {"remote"}, NUMPY | {"msgspec", "obstore"}),
    "document_sources": (STORAGE, NUMPY | {"pyarrow"}),
    "order": (ORDER, NUMPY),
    "checkpoints": (STORAGE | {"checkpoints"}, set()),
    "claims": (STORAGE | {"claims"}, set()),
    "stop_signals": ({"files", "received_signals"}, set()),
    "received_signals": ({"claims", "failures", "stop_signals", "terminal"}, set()),
    "dataset": (DATASET, NUMPY),
    "history": (HISTORY, NUMPY),
    "original": (HISTORY | {"original"}, NUMPY | {"numba"}),
    "state": (HISTORY, NUMPY),
    "batch_schedule": ({"errors", "order", "state"}, NUMPY),
    "settings": (BASE | {"config", "order", "history", "batch_schedule", "settings"}, set()),
    "loader": (LOADER, NUMPY | {"torch"}),
    "balance": (LOADER | {"settings"}, {"torch"}),
    "staging": (LOADER | {"staging"}, NUMPY),
    "tokenizers": (
        BASE | {"config", "identity", "remote", "tokenizers"},
        NUMPY | {"sentencepiece", "tokenizers", "gigatoken", "orjson", "tiktoken"},
    ),
    "tokenizer_check": (STORAGE | {"tokenizers", "tokenizer_check"}, NUMPY),
    "prepare": (
        STORAGE | {"document_sources", "remote", "tokenizers", "tables", "prepare"},
        NUMPY
        | {"orjson", "backports", "compression", "isal", "pyarrow", "sentencepiece", "xxhash"}
        | {"fsspec", "obstore", "ray", "mpi4py", "datatrove", "rich"},
    ),
    "shards": (
        STORAGE | {"document_sources", "tokenizers", "tokenizer_check", "tables", "shards"},
        NUMPY | {"xxhash"},
    ),
    "runs": (
        HISTORY
        | {
            "original",
            "state",
            "batch_schedule",
            "settings",
            "checkpoints",
            "tokenizers",
            "tokenizer_check",
        }
        | {"document_sources", "metric_names", "tables", "shards", "staging", "runs"}
        | {"corpus_progress"},
        NUMPY | {"duckdb", "pyarrow", "jinja2", "plotly", "tensorboard"},
    ),
    "mixture": (
        STORAGE | {"dataset", "order", "metric_names", "settings", "runs", "tables", "mixture"},
        NUMPY | {"tomlkit"},
    ),
    "moving": (
        HISTORY
        | {"original", "state", "batch_schedule", "settings", "checkpoints", "runs", "tables"}
        | {"tokenizers", "titan", "moving"},
        {"sentencepiece", "tokenizers", "torch", "torchtitan", "safetensors"},
    ),
    "corpus_losses": (DATASET, {"torch"}),
    "corpus_progress": (DATASET | {"metric_names", "tables"}, set()),
    "placed_loader": (LOADER | {"batch_schedule", "run_changes"}, {"torch"}),
    "run_changes": (
        LOADER | {"batch_schedule", "settings", "placed_loader", "run_changes"},
        {"torch"},
    ),
    "failures": ({"errors", "files", "retries", "visible", "terminal"}, set()),
    "titan": (
        # The last two where that branch is installed, and where it is configured.
        TITAN | {"checkpoints", "failures", "titan_main", "titan_ft"},
        NUMPY | {"torch", "torchtitan", "torchao", "tensorboard"},
    ),
    "titan02": (TITAN | {"titan02", "failures"}, {"torch", "torchtitan"}),
    "titan_main": (TITAN | {"titan_main"}, {"torch", "torchtitan"}),
    "titan_ft": (TITAN | {"titan_ft"}, {"torch", "torchtitan", "torchft"}),
    "grain_source": (HISTORY | {"state", "grain_source"}, NUMPY),
    "tables": ({"visible"}, {"rich"}),
    "terminal": ({"visible", "tables"}, set()),
    "commands": (
        STORAGE
        | {"tokenizers", "prepare", "shards", "settings", "runs", "mixture", "moving", "start"}
        | {"tables", "terminal", "commands"},
        set(),
    ),
    "start": (
        HISTORY
        | {"state", "batch_schedule", "checkpoints", "claims", "tokenizer_check"}
        | {"prepare", "runs", "settings", "stop_signals", "tables", "tokenizers"}
        | {"failures", "terminal", "start"},
        {"msgspec", "tomlkit", "torch"},
    ),
    "cli": ({"errors", "visible", "terminal", "failures", "commands", "settings"}, set()),
    "__main__": ({"cli"}, set()),
    "__init__": (LOADER, set()),
}


def layer_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_layer_imports_only_what_it_may(path: Path) -> None:
    own, other = MAY_IMPORT[layer_of(path)]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "blendtitan":
            assert parts[1] in own, f"{path} imports {name}"
        else:
            assert parts[0] in other | sys.stdlib_module_names, f"{path} imports {name}"


def test_the_order_is_free_of_files_clocks_and_global_randomness() -> None:
    for path in SOURCE.glob("order/*.py"):
        names = {name.split(".")[0] for name in imported(path)}

        assert not names & {"os", "io", "pathlib", "time", "random", "datetime"}, path


def test_the_page_on_the_design_shows_who_may_import_whom() -> None:
    """Its table is this one; where they differ, the error shows the lines that are expected."""
    lines = (ROOT / "docs/design.md").read_text().splitlines()
    start = lines.index("| layer | may import of blendtitan | other packages |") + 2

    expected = [
        f"| `{layer}` | {', '.join(sorted(own - {layer}))} | {', '.join(sorted(other))} |"
        for layer, (own, other) in MAY_IMPORT.items()
    ]

    assert lines[start : start + len(expected)] == expected, "\n".join(expected)


ONE_PLACE = {
    "terminal": {"print"},
    "visible": {"logging.getLogger"},
    "cli": {"logging.basicConfig"},
    "start": {"logging.getLogger"},  # to silence torch's
}
"""Module: what only it may call. The rest prints, logs and draws through them."""

READERS = {
    "files.py": "the one place",
    "prepare/input_file.py": "texts, also by URL",
    "storage/atomic_files.py": "/proc, of this machine; a folder, to be synchronised",
    "staging/folder.py": "/proc, of this machine",
    "prepare/claims.py": "a new claim, to be written",
    "runs/checkpoints.py": "/proc, of this process",
    "tokenizers/fast.py": "/proc, of this process",
    "runs/report/figures.py": "files of this package",
    "commands/arguments.py": "manuals, of this package",
    "cli.py": "/dev/null",
}
"""Modules that may open a file for reading, and what."""


@cache
def calls(path: Path) -> set[str]:
    """Names of the functions that a module calls, modes of opened files after them."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            found.add(f"{name} {modes[-1]}" if name.endswith("open") and modes else name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_one_place_prints_and_makes_loggers(path: Path) -> None:
    """Names of corpora and files may hold escape sequences: whatever is shown goes through it.

    Print with ``terminal.say``; log with ``visible.visible_logger(__name__)``; make tables with
    ``tables.Table``. A message of several lines is ``SomeError(*lines)``.
    """
    own = ONE_PLACE.get(layer_of(path), set())
    for name in set().union(*ONE_PLACE.values(), {"warnings.warn", "sys.stdout.write"}) - own:
        assert name not in calls(path), f"{path} calls {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_one_place_opens_files_for_reading(path: Path) -> None:
    """What is no regular file may never end: use ``read_file``, ``read_text`` or ``open_file``."""
    if str(path.relative_to(SOURCE)) in READERS:
        return
    for name in calls(path):
        function, _, mode = name.partition(" ")
        is_reading = (
            function.endswith((".read_bytes", ".read_text"))
            or (function in ("open", "os.open") and not set(mode) & set("wax"))
            or (function.endswith(".open") and set(mode) <= set("rbt") and mode != "")
        )
        assert not is_reading, f"{path} calls {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_lines_of_an_error_are_arguments_of_their_own(path: Path) -> None:
    """A line break inside of one is taken for a part of a name, and spelled out."""
    raised = [node.exc for node in nodes_of(path) if isinstance(node, ast.Raise) and node.exc]
    texts = [node for error in raised for node in ast.walk(error) if isinstance(node, ast.Constant)]

    assert not any(isinstance(text.value, str) and "\n" in text.value for text in texts)
