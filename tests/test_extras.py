"""What an installation has: the data tools without torch, and one line that names what is missing.

The last test installs the wheel for real; the others hide packages from a new process.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import pytest

from blendtitan.cli import COMMANDS
from blendtitan.errors import ConfigError, MissingExtraError, requires_extra
from blendtitan.prepare.demo import CORPORA
from tests.test_layers import FILES, MAY_IMPORT, ROOT, SOURCE, layer_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"plots", "docs", "test"}
PINNED = {"titan02", "titan03"}
"""Sets of versions for training; errors name ``train``."""
WITHOUT_TORCH = [path for path in FILES if "torch" not in MAY_IMPORT[layer_of(path)][1]]


def run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from this checkout, with no packages but those of its Python."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


# --- declared ---------------------------------------------------------------------------------


def test_a_core_installation_has_neither_torch_nor_torchtitan() -> None:
    core = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    training = {name_of(requirement) for requirement in EXTRAS["train"]}

    assert {"torch", "torchtitan", "tensorboard", "triton"} == training
    assert not core & training


def test_every_extra_that_an_error_names_exists_and_is_documented() -> None:
    source = "".join(path.read_text() for path in FILES)
    named = set(re.findall(r'requires_extra\(\s*"(\w+)"', source))
    rows = re.findall(r"^\| (`\w+`.*?) \|", (ROOT / "docs/quickstart.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    named.add("grain")  # which only the user\'s program imports
    assert named == EXTRAS.keys() - FOR_DEVELOPERS - PINNED
    assert documented >= named | PINNED


# --- imported ---------------------------------------------------------------------------------


def test_the_data_tools_import_no_torch_where_it_is_installed() -> None:
    """It takes seconds, in each worker process. Optional packages are imported when used."""
    modules = [
        ".".join(["blendtitan", *path.relative_to(SOURCE).with_suffix("").parts])
        for path in WITHOUT_TORCH
        if path.stem not in ("__init__", "datatrove_sink")
    ]
    slow = ["torch", "torchtitan", "transformers", "datatrove", "ray", "mpi4py", "numba"]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {slow} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert len(modules) > 100
    assert done.stdout == "[]\n"


# --- missing ----------------------------------------------------------------------------------


def test_a_broken_package_and_an_absent_one_give_different_messages() -> None:
    with pytest.raises(MissingExtraError) as absent, requires_extra("fast", "a test"):
        import no_such_package.part  # noqa: F401  # pyright: ignore[reportMissingImports]
    with pytest.raises(ConfigError) as broken, requires_extra("fast", "a test"):
        raise ImportError("libx.so: no such file", name="package.part")

    install = "pip install 'blendtitan[fast]'"
    assert str(absent.value) == f"a test needs no_such_package, which is not installed: {install}"
    assert str(broken.value) == (
        f"a test needs packages of the extra fast, which cannot be imported (libx.so: no such "
        f"file): {install}"
    )


def test_a_missing_module_of_ours_names_no_extra() -> None:
    with pytest.raises(ModuleNotFoundError), requires_extra("fast", "a test"):
        import blendtitan.no_such_module  # noqa: F401  # pyright: ignore[reportMissingImports]


HIDDEN = "import sys; sys.modules.update(dict.fromkeys({hidden})); {code}"
COMMAND = "from blendtitan.cli import main; sys.exit(main(sys.argv[1:]))"
ENTRY = "import runpy; runpy.run_module('blendtitan.{}.train', run_name='__main__')"


@pytest.mark.parametrize(
    ("hidden", "code", "arguments", "expected"),
    [
        ("plotly", COMMAND, "report run", "blendtitan report: an HTML page needs {}"),
        ("jinja2", COMMAND, "plan run --picture x", "blendtitan plan: an HTML page needs {}"),
        ("ray", COMMAND, "tokenize x --output y --tokenizer z --engine ray", "--engine ray needs"),
        ("mpi4py", COMMAND, "tokenize x --output y --tokenizer z --engine mpi", "mpi needs {}"),
        ("torch", ENTRY.format("titan"), "", "training needs {}"),
        ("torchtitan", ENTRY.format("titan"), "", "training needs {}"),
        ("torch", ENTRY.format("titan02"), "", "training needs {}"),
    ],
)
def test_a_command_ends_in_one_line_that_names_the_extra(
    tmp_path: Path, hidden: str, code: str, arguments: str, expected: str
) -> None:
    extra = next(
        extra for extra, needed in EXTRAS.items() if hidden in {name_of(each) for each in needed}
    )
    program = HIDDEN.format(hidden=[hidden], code=code)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert expected.format(hidden) in done.stderr
    assert done.stderr.endswith(
        f"{hidden}, which is not installed: pip install 'blendtitan[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("hidden", "code", "extra"),
    [
        ("torch", "from blendtitan import DataLoader", "train"),
        ("torch", "from blendtitan.titan import prepare", "train"),
        ("datatrove", "from blendtitan.prepare.datatrove_sink import ShardSink", "datatrove"),
    ],
)
def test_a_name_that_needs_an_extra_is_an_import_error_that_names_it(
    hidden: str, code: str, extra: str
) -> None:
    code = f"try:\n    {code}\nexcept ImportError as error: print(error)"
    program = f"import sys; sys.modules[{hidden!r}] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert re.fullmatch(
        rf"\S+ needs {hidden}, which is not installed: pip install 'blendtitan\[{extra}\]'\n",
        done.stdout,
    )


# --- installed --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and its core dependencies, and nothing else.

    Versions are those of this environment, which pip has in its cache.
    """
    folder = tmp_path_factory.mktemp("core")
    versions = {found.name: found.version for found in distributions() if found.name}
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"{name}=={number}\n" for name, number in versions.items() if name != "blendtitan")
    )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    python = folder / "environment/bin/python"
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    create = [sys.executable, "-m", "venv", "--without-pip", folder / "environment"]
    for command in (build, create):
        done = run(command, folder)
        assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "--python", python, "install", "--no-compile", "-c", constraints, wheel]
    done = run(install, folder)
    assert done.returncode == 0, done.stderr
    return python.parent


def check_texts(folder: Path) -> None:
    """Check that none is empty, and that all hold whole characters.

    An escape in a docstring may stand for half a character, which a file cannot hold.
    """
    for corpus in CORPORA:
        lines = [
            line for path in folder.glob(f"{corpus}/*") for line in path.read_bytes().splitlines()
        ]
        assert lines
        assert all(json.loads(line)["text"].strip().encode() for line in lines)


@pytest.mark.slow
def test_the_wheel_alone_prepares_the_demo(core: Path, tmp_path: Path) -> None:
    """As a user does on a machine for data, from text to the plan of a run."""

    def output_of(command: str) -> str:
        name, *arguments = shlex.split(command)
        done = run([core / name, *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    package = Path(output_of("python -c 'import blendtitan as b; print(*b.__path__)'").strip())
    config = package / "configs/debug.toml"
    output_of("blendtitan demo --output data/demo --vocab-size 1024")
    check_texts(tmp_path / "data/demo/text")
    readmes = "data/demo/text/readmes --corpus readmes"
    output_of(f"blendtitan tokenize {readmes} --output data/mine --tokenizer data/demo/tokenizer")
    output_of("blendtitan mix data/mine data/demo/tokens/code --output data/list.txt")
    output_of("blendtitan verify data/mine")
    stats = output_of("blendtitan stats data/list.txt")
    plan = output_of(f"blendtitan plan {config}")
    explained = output_of(f"blendtitan explain {config} --step 1")

    assert "code" in stats
    assert "readmes" in stats
    assert plan.startswith("40 steps of 8 samples of 256 tokens")
    assert "step 1" in explained


@pytest.mark.slow
def test_the_wheel_alone_has_the_help_of_every_command(core: Path, tmp_path: Path) -> None:
    code = (
        "import contextlib\nfrom blendtitan.cli import COMMANDS, main\n"
        "for name in COMMANDS:\n    with contextlib.suppress(SystemExit): main([name, '--help'])"
    )
    done = run([core / "python", "-c", code], tmp_path)

    assert done.stderr == ""
    for command in COMMANDS:
        assert f" {command} " in done.stdout
        assert f"example:\n  blendtitan {command} " in done.stdout


@pytest.mark.slow
def test_the_wheel_alone_says_in_one_line_what_training_needs(core: Path, tmp_path: Path) -> None:
    for module in ("torch", "torchtitan", "tensorboard", "plotly"):
        assert run([core / "python", "-c", f"import {module}"], tmp_path).returncode == 1
    for module in ("titan", "titan02"):
        done = run([core / "python", "-m", f"blendtitan.{module}.train"], tmp_path)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "training needs torch, which is not installed: pip install 'blendtitan[train]'\n"
        )
