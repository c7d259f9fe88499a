"""Architecture: data flows one way; a layer imports only what stands to its left."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/blendtitan"

NUMPY = {"numpy"}
STORAGE = {"errors", "config", "identity", "storage"}
ORDER = {"errors", "config", "order"}
DATASET = STORAGE | ORDER | {"dataset"}
LOADER = DATASET | {"state", "loader"}

# Layer: what it may import of blendtitan, and of other packages.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "config": ({"errors"}, set()),
    "identity": (set(), set()),
    "storage": (STORAGE, NUMPY),
    "order": (ORDER, NUMPY | {"numba"}),
    "checkpoints": (STORAGE | {"checkpoints"}, set()),
    "dataset": (DATASET, NUMPY),
    "state": (DATASET, NUMPY),
    "pace": ({"errors", "state"}, set()),
    "run": ({"errors", "config", "order", "pace", "run"}, set()),
    "loader": (LOADER | {"reading_threads"}, NUMPY | {"torch"}),
    "reading_threads": (set(), set()),
    "tokenizers": (
        {"errors", "config", "identity", "tokenizers"},
        NUMPY | {"sentencepiece", "tokenizers", "gigatoken", "orjson"},
    ),
    "tokenizer_check": (STORAGE | {"tokenizers", "tokenizer_check"}, NUMPY),
    "prepare": (
        STORAGE | {"tokenizers", "tables", "prepare"},
        NUMPY
        | {"orjson", "zstandard", "isal", "pyarrow", "rich", "sentencepiece", "xxhash", "fsspec"}
        | {"ray", "mpi4py", "datatrove"},
    ),
    "inspection": (
        DATASET
        | {
            "state",
            "pace",
            "run",
            "checkpoints",
            "tokenizers",
            "tokenizer_check",
            "tables",
            "inspection",
        },
        NUMPY | {"jinja2", "plotly", "rich", "tensorboard", "xxhash"},
    ),
    "mixture": (
        STORAGE | {"dataset", "run", "inspection", "tables", "mixture"},
        NUMPY | {"rich", "tomlkit"},
    ),
    "corpus_losses": (DATASET, {"torch"}),
    "titan": (
        LOADER
        | {
            "corpus_losses",
            "pace",
            "run",
            "checkpoints",
            "tokenizers",
            "tokenizer_check",
            "tables",
            "titan",
        },
        NUMPY | {"torch", "torchtitan", "tensorboard"},
    ),
    "tables": (set(), {"rich"}),
    "commands": (
        STORAGE | {"tokenizers", "prepare", "inspection", "mixture", "tables", "commands"},
        set(),
    ),
    "cli": ({"errors", "commands"}, set()),
    "__init__": (LOADER, set()),
}


def layer_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
