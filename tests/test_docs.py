"""Documentation: complete, and every command and snippet in it runs."""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from blendtitan import BlendConfig
from blendtitan.cli import parser
from blendtitan.prepare import demo

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
COMMAND_REFERENCE = ROOT / "docs/commands.md"  # made from the commands, and tested as that
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN_IN_ORDER = (
    "README.md",
    "docs/preparing.md",
    "docs/moving-from-megatron.md",
    "docs/moving-from-torchtitan.md",
    "docs/moving-from-streaming.md",
    "docs/performance.md",
    "docs/looking.md",
)


def code_blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


def runnable_blocks(page: Path) -> list[list[str]]:
    """The command that runs each block, in the order of the page; sessions are run elsewhere."""
    path = f"{Path(sys.executable).parent}:$PATH"
    commands = {
        "bash": lambda code: ["bash", "-ec", f'PATH="{path}"\n{code}'],
        "python": lambda code: [sys.executable, "-c", code],
    }
    return [
        commands[language](code)
        for language, code in BLOCK.findall(page.read_text())
        if language in commands and ">>>" not in code
    ]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_fault_has_a_test_that_exists() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    tables = re.findall(r"^\| fault \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    faults = [row for table in tables for row in table.splitlines()]

    assert len(faults) > 30
    for fault in faults:
        named = NAMED_TEST.findall(fault)
        assert named, fault
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_session_in_the_docs_prints_the_shown_output(page: Path) -> None:
    failures, _ = doctest.testfile(str(page), module_relative=False)

    assert failures == 0


def test_every_command_is_documented() -> None:
    usage = run([sys.executable, "-m", "blendtitan.cli", "--help"], ROOT)
    commands = re.findall(r"^    (\w+) ", usage, re.MULTILINE)
    pages = "".join(page.read_text() for page in PAGES)

    assert {"tokenize", "mix", "demo"} <= set(commands)
    for command in commands:
        assert f"## blendtitan {command}" in pages


def test_every_field_of_a_blend_is_documented() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    for field in fields(BlendConfig):
        assert f"`{field.name}`" in page


def commands_shown(page: Path) -> list[list[str]]:
    """The words of each command that a page shows indented, where it needs what is not here."""
    text = BLOCK.sub("", page.read_text()).replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    (\w+ .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("page", sorted({*PAGES} - {COMMAND_REFERENCE}), ids=lambda page: page.name)
def test_every_command_shown_has_arguments_that_there_are(page: Path) -> None:
    for name, *words in commands_shown(page):
        if name == "blendtitan":
            assert parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_with_snippets_is_run_by_a_test(page: Path) -> None:
    """The test below runs some pages as they are; of the others, tests take the snippets."""
    run_as_it_is = page in [ROOT / name for name in RUN_IN_ORDER]
    languages = {"toml"} if run_as_it_is else {"toml", "python", "bash"}
    taken = [
        code
        for language, code in BLOCK.findall(page.read_text())
        if language in languages and ">>>" not in code
    ]
    tests = [path.read_text() for path in ROOT.glob("tests/**/test_*.py")]

    if taken:
        assert any(f'{page.name}"' in test and "code_blocks" in test for test in tests)


def beginnings(texts: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    return lambda: (text[:2000] for text in texts())


@pytest.mark.slow
def test_the_commands_and_snippets_of_the_pages_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a new user would: page after page, in one folder.

    The demo holds the beginnings of its documents, so that every command takes less time; it is
    complete, so the pages' own command keeps it. ``tests/test_commands.py`` makes the whole one.
    """
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for corpus, texts in demo.CORPORA.items():
        monkeypatch.setitem(demo.CORPORA, corpus, beginnings(texts))
    demo.prepare_demo(tmp_path / "data/demo")
    for name in RUN_IN_ORDER:
        # The demo comes first whatever the page's order: the others read its tokenizer.
        for command in sorted(
            runnable_blocks(ROOT / name), key=lambda command: "blendtitan demo" not in command[-1]
        ):
            run(command, tmp_path)
