"""Mistakes of newcomers with ``init`` and ``prepare``: one error, with a remedy that exists."""

import argparse
import ast
import errno
import gzip
import logging
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan import cli
from blendtitan.errors import ConfigError, EmptySplitError, OutputError
from blendtitan.prepare.demo import train_tokenizer, write_jsonl
from blendtitan.runs.prepared import PREPARED, unprepared_edit
from blendtitan.runs.run_folder import CONFIG, DATA, FILE_LIST
from blendtitan.settings import templates
from blendtitan.start import folder as folder_module
from blendtitan.start.check import check_run
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import read_record
from tests.test_docs import ROOT

SOURCE = ROOT / "src/blendtitan"
TEXTS = [f"Document {n}. " + " ".join(f"word{n * k % 97}" for k in range(60)) for n in range(99)]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora of text, and a tokenizer beside them."""
    folder = tmp_path_factory.mktemp("mistakes")
    for corpus in ("code", "web"):
        write_jsonl(folder / "text" / corpus, TEXTS)
    (folder / "tokenizer.model").write_bytes(train_tokenizer(TEXTS, vocab_size=300))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with this text and tokenizer."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*data: str, folder: str = "run", tokenizer: str = "tokenizer.model", key: str = "") -> int:
    words = ["init", folder, "--data", *(data or ["text"]), "--tokenizer", tokenizer]
    return cli.main([*words, *(["--key", key] if key else [])])


def prepare(*more: str) -> int:
    return cli.main(["prepare", "run", "--workers", "1", *more])


def edit(old: str, new: str) -> None:
    replace_in(Path("run", DATA), old, new)


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def error_of(capsys: Capture) -> str:
    """The error, which is the last output and has few lines."""
    text = capsys.readouterr().err
    error = text[text.rindex("\nblendtitan ") + 1 :] if "\nblendtitan " in text else text
    assert error.startswith("blendtitan ")
    assert error.count("\n") <= 5
    assert "Errno" not in error
    return error


def test_text_files_of_one_document_each_can_be_trained_on(here: Path, capsys: Capture) -> None:
    """None of them can be set aside for validation, which `train` would refuse."""
    for corpus in ("a", "b"):
        Path("books", corpus).mkdir(parents=True)
        for n in range(2):
            Path("books", corpus, f"{n}.txt").write_text("\n".join(TEXTS))

    assert init("books") == 0
    assert "validation is off" in capsys.readouterr().out
    assert prepare() == 0

    assert check_run(Path("run", CONFIG)) == ""
    assert "is one .txt file" in Path("run", CONFIG).read_text()
    with pytest.raises(EmptySplitError, match=r'and each has only one\. .* txt = "line" in data'):
        check_run(Path("run", CONFIG), ["--validation.enable", "true"])


def test_a_corpus_without_validation_data_is_named(here: Path, capsys: Capture) -> None:
    """The validation loss would otherwise seem to be that of all corpora."""
    Path("text/books").mkdir()
    Path("text/books/0.txt").write_text("\n".join(TEXTS))

    assert init() == 0
    assert "so there is no validation data of books. To have some, set" in capsys.readouterr().out
    assert prepare() == 0
    assert check_run(Path("run", CONFIG)) == ""


@pytest.mark.parametrize("more", [["--txt", "line"], ["--data", "text"]])
def test_validation_stays_on_where_documents_can_be_set_aside(here: Path, more: list[str]) -> None:
    Path("books").mkdir()
    Path("books", "a.txt").write_text("\n".join(TEXTS))

    assert (
        cli.main(["init", "run", "--data", "books", "--tokenizer", "tokenizer.model", *more]) == 0
    )

    assert tomllib.loads(Path("run", CONFIG).read_text())["validation"]["enable"]


def test_a_copy_of_a_run_folder_does_not_continue_the_original(here: Path, capsys: Capture) -> None:
    assert init() == prepare() == 0
    shutil.copytree("run", "copy")

    assert cli.main(["prepare", "copy", "--workers", "1"]) == 0

    output, advice = capsys.readouterr()
    assert f'copy/config.toml trains with blendcorpus.data_file_list = "{here}/run/' in advice
    assert output.endswith("To train after that change: blendtitan train copy\n")
    with pytest.raises(ConfigError, match=r"so training would continue the run in .*/run. After"):
        check_run(Path("copy", CONFIG))
    assert check_run(Path("copy", CONFIG), [f"--job.dump_folder={here}/run/outputs"]) == ""
    replace_in(Path("copy", CONFIG), f"{here}/run", f"{here}/copy")
    assert check_run(Path("copy", CONFIG)) == ""
    assert cli.main(["prepare", "copy", "--workers", "1"]) == 0
    output, advice = capsys.readouterr()
    assert "trains with" not in advice
    assert output.endswith("The data is ready. To train: blendtitan train copy\n")


def test_shards_of_another_tokenizer_are_refused_before_training(
    here: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    assert init() == prepare() == 0
    shutil.move("run", "made")
    Path("other.model").write_bytes(train_tokenizer(TEXTS, vocab_size=290))

    mismatch = "8 of 8 shards do not belong to the tokenizer of this run"
    assert init("made/tokens") == 0
    assert mismatch not in caplog.text
    shutil.rmtree("run")
    assert init("made/tokens", tokenizer="other.model") == 0
    assert mismatch in caplog.text
    assert 'unless run/config.toml has blendcorpus.tokenizer_check = "warn"' in caplog.text
    assert prepare() == 1
    assert mismatch in capsys.readouterr().err


def test_a_tokenizer_without_an_eos_is_named_where_a_run_needs_one(
    here: Path, word_tokenizer: Path, capsys: Capture
) -> None:
    """Not only the key that would replace the EOS."""
    assert init() == prepare() == 0
    shutil.copy(word_tokenizer / "tokenizer.json", ".")
    words = ["--model.tokenizer_path", "tokenizer.json"]

    for command in ("train", "plan"):
        capsys.readouterr()
        assert cli.main([command, "run", *words]) == 1
        assert re.search(
            r"tokenizer\.json: the tokenizer has no EOS to end documents with, but "
            r"blendcorpus\.append_eod needs one\. .*eod_token_id .* tokenizer_config\.json",
            error_of(capsys),
        )


def test_a_dataset_of_torchtitan_needs_its_tokenizer(here: Path) -> None:
    assert init() == prepare() == 0

    with pytest.raises(ConfigError, match=r"dataset is 'c4', .*hf_assets_path, which"):
        check_run(Path("run", CONFIG), ["--training.dataset=c4"])


@pytest.mark.parametrize("command", ["plan", "explain", "report", "removed", "train"])
def test_of_a_run_that_does_not_exist_the_error_says_how_to_make_one(
    command: str, here: Path, capsys: Capture
) -> None:
    assert cli.main([command, "nosuch"]) == 1

    assert "nosuch: there is no such file or run folder. Make a run folder" in error_of(capsys)


# --- what a command may say ---------------------------------------------------------------------


def literals(path: Path) -> Iterator[str]:
    """The texts of a file that a program may show; docstrings are not among them."""
    tree = ast.parse(path.read_text())
    lone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                f"{p.value}" if isinstance(p, ast.Constant) else "{}" for p in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [] if id(node) in lone | parts else [node.value]


def options_of(command: str) -> set[str]:
    (found,) = (
        action.choices[command]
        for action in cli.parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {option for action in found._actions for option in action.option_strings}


NOT_OF_PREPARE = {
    *("demo.py", "merge.py", "mix.py"),
    *("convert.py", "litdata.py", "mds.py", "row_documents.py", "token_rows.py"),
}
ONLY_IF_GIVEN = {
    *("--bos", "--engine", "--rank", "--world-size", "--tokenizer-tier"),
    *("--from-code", "--to-code", "--include", "--eos_id"),  # of iconv, hf and spm_train
}
"""Options in errors that only a command with these options can raise, and of other programs."""


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in [*SOURCE.glob("prepare/*.py"), *SOURCE.glob("tokenizers/*.py")]
        if path.name not in NOT_OF_PREPARE
    ],
    ids=lambda path: path.name,
)
def test_errors_of_prepare_name_only_options_that_prepare_has(path: Path) -> None:
    """A remedy that the command refuses is none. Whole commands may be quoted."""
    known = options_of("prepare") | ONLY_IF_GIVEN
    for text in literals(path):
        own = re.sub(r"blendtitan [a-z]+ .*", "", text, flags=re.DOTALL)

        assert {*re.findall(r"(?<![\w-])--[a-z][\w-]+", own)} <= known, text


OF_A_CLONE = re.compile(r"(?<![\w/{}])(docs|configs|scripts|launch|tests|benchmarks)/\w")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_that_is_shown_names_a_file_of_a_clone(path: Path) -> None:
    """Whoever installed the wheel has none."""
    shown = [text for text in literals(path) if OF_A_CLONE.search(text)]

    assert not [text for text in shown if path.name != "templates.py"]


@pytest.mark.parametrize("path", sorted(SOURCE.glob("commands/manuals/*.txt")))
def test_no_manual_names_a_file_of_a_clone(path: Path) -> None:
    assert not OF_A_CLONE.search(path.read_text())


def test_the_manual_of_init_lists_the_templates() -> None:
    manual, _ = cli.COMMANDS["init"].texts()
    listed = re.search(r"Templates: (.*?)\.\n", manual, re.DOTALL)

    assert listed
    assert {*re.split(r",\s+", listed[1])} == {p.stem for p in templates.TEMPLATES.glob("*.toml")}


def test_a_configuration_names_the_page_of_its_keys_by_its_address(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Name: blendtitan\nVersion: 1.2\nProject-URL: Repository, https://host/us/it\n"
    monkeypatch.setattr(templates, "metadata", lambda _: Parser().parsestr(text))
    assert init() == 0

    for path in Path("run").iterdir():
        assert not re.search(r"(?<!/)\b(docs|configs|scripts|launch)/", path.read_text())
    address = "https://host/us/it/blob/v1.2/docs/configuration.md"
    assert f"Every key: {address}\n" in Path("run/config.toml").read_text()
    assert (ROOT / "docs/configuration.md").is_file()


def test_a_misspelt_option_is_named_before_those_that_are_required(
    here: Path, capsys: Capture
) -> None:
    for words, message in [
        (["--dta", "text", "--tokenizer", "tokenizer.model"], "--dta. Did you mean --data?"),
        (["--data", "text", "--tokeniser=tokenizer.model"], "Did you mean --tokenizer?"),
    ]:
        with pytest.raises(SystemExit):
            cli.main(["init", "run", *words])
        assert message in error_of(capsys)
    with pytest.raises(SystemExit):
        cli.main(["init", "run", "--dat", "text"])  # a short form
    assert "the following arguments are required: --tokenizer" in error_of(capsys)


def test_a_misspelt_path_of_a_tokenizer_is_not_taken_for_a_repository(
    here: Path, capsys: Capture
) -> None:
    Path("tokenizers").mkdir()
    shutil.move("tokenizer.model", "tokenizers")

    assert init(tokenizer="tokenizers/tokenizer.modl") == 1
    assert error_of(capsys).endswith("Did you mean tokenizers/tokenizer.model?\n")


# --- init ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nope", r"nope: there is no such file or folder in .*, where the command runs\. Check"),
        ("tex", r"tex: there is no such file .* Did you mean text\?"),
        ("empty", r"empty: holds no file named \*\.jsonl, .*Name text in one of these formats"),
        ("pdf", r"(?s)a\.pdf: has an unknown format.*Move or hide them .*'pdf/\*\*/\*\.jsonl'"),
        ("pdf/a.pdf", r"a\.pdf: expected a folder, or a file named .*if not, convert it"),
        ("blank", r"blank: holds only empty files, expected text"),
        ("not.jsonl.gz", r"not\.jsonl\.gz: the compressed data cannot be read: Not a gzipped"),
        ("binary.jsonl", r"binary\.jsonl, byte 0: not JSON in UTF-8"),
        (".web=text/web", r"'\.web' cannot be the name of a corpus"),
        ("=text/web", r"'' cannot be the name of a corpus"),
        ("a\"'=text/web", r"cannot be the name of a corpus.* without both kinds of quotes"),
    ],
)
def test_text_that_cannot_be_used_is_refused_by_init(
    here: Path, data: str, message: str, capsys: Capture
) -> None:
    for name in ("empty", "pdf", "blank"):
        Path(name).mkdir()
    Path("pdf/a.pdf").touch()
    Path("blank/a.jsonl").touch()
    Path("not.jsonl.gz").write_text('{"text": "a"}\n')
    Path("binary.jsonl").write_bytes(bytes(range(128, 256)) * 9)

    assert init(data) == 1
    assert re.search(message, error_of(capsys))
    assert not Path("run").exists()


def test_a_text_in_two_corpora_is_refused(here: Path, capsys: Capture) -> None:
    """The run would read it twice as often without a word."""
    assert init("a=text/web", "b=text/web") == 1
    assert "web/0.jsonl: is in two corpora, a and b, expected one. To read" in error_of(capsys)
    assert init() == 0
    edit("text/code", "text/*")
    assert prepare() == 1
    assert "is in two corpora, code and web" in error_of(capsys)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_init_refuses_a_wrong_key_and_names_those_that_exist(
    here: Path, name: str, capsys: Capture
) -> None:
    Path("in").mkdir()
    Path("in/0.jsonl").touch()  # without a text: the next file decides
    rows = b'{"body": "first"}\n{"body": "second"}\n'
    if name.endswith("parquet"):
        pq.write_table(pa.table({"body": ["first", "second"]}), "in/a.parquet")
    elif name.endswith("gz"):
        Path("in", name).write_bytes(gzip.compress(rows))
    else:
        Path("in", name).write_bytes(b"body\nfirst\n" if name.endswith("csv") else rows)

    assert init("in") == 1
    error = error_of(capsys)
    assert re.search(r"there is no (key|column) 'text', found '?body'?\nName the .*--key", error)
    assert init("in", key="body") == 0


def test_training_does_not_begin_on_data_that_was_prepared_before_an_edit(
    here: Path, capsys: Capture
) -> None:
    """It would read the old blend, and nobody would notice."""
    assert init() == 0
    assert prepare() == 0
    original = Path("run", DATA).read_text()
    more = Path("text/more")
    shutil.copytree("text/web", more)

    for old, new, entry in [
        ("web = 1.0", "web = 2.5", "epochs.web"),
        ("[corpora]", f'[corpora]\nmore = "{more.absolute()}"', "corpora.more"),
        ('key = "text"', 'key = "body"', "key"),
        ("[epochs]", "[keys]\ncode = 'body'\n[epochs]", "keys.code"),
    ]:
        edit(old, new)
        with pytest.raises(ConfigError) as error:
            check_run(Path("run", CONFIG))
        expected = (
            f"run/data.toml was edited after the data was prepared ({entry}). Run blendtitan "
        )
        assert str(error.value).startswith(expected)
        assert cli.main(["plan", "run"]) == 0
        assert f"prepared ({entry}). Run" in capsys.readouterr().out
        Path("run", DATA).write_text(original)
    assert check_run(Path("run", CONFIG)) == ""
    Path("run", DATA).write_text("[epochs")
    with pytest.raises(
        ConfigError, match=r"data\.toml: not a TOML file: .* run/prepared\.toml is a copy"
    ):
        check_run(Path("run", CONFIG))
    Path("run", DATA).write_bytes(b'key = "\xe9"')
    with pytest.raises(
        ConfigError, match=r"data\.toml: not a TOML file: .*byte\. Save it as UTF-8"
    ):
        check_run(Path("run", CONFIG))
    Path("run", DATA).unlink()
    with pytest.raises(
        ConfigError, match=r"data\.toml: cannot be read .*run/prepared\.toml is a copy"
    ):
        check_run(Path("run", CONFIG))
    Path("run", DATA).write_text(original)
    prepared = Path("run", PREPARED).read_text()
    Path("run", PREPARED).write_text("[epochs")
    with pytest.raises(
        ConfigError, match=r"prepared\.toml: .*write it again: blendtitan prepare run"
    ):
        check_run(Path("run", CONFIG))
    Path("run", PREPARED).write_text(prepared)
    edit("web = 1.0\n", "# a corpus that is not listed has one epoch\n")
    assert check_run(Path("run", CONFIG)) == ""
    edit("[corpora]", f'[corpora]\nmore = "{more.absolute()}"')
    assert prepare() == 0
    assert check_run(Path("run", CONFIG)) == ""
    edit("[corpora]", "# of another list, nothing is known\n[corpora]\nother = 'x'")
    shutil.copy("run/file_list.txt", "list.txt")
    with pytest.raises(ConfigError, match=r"corpora\.other"):
        check_run(Path("run", CONFIG))
    words = ["--blendcorpus.data_file_list", "list.txt"]
    Path("list.txt").write_text(re.sub(r" tokens/", " run/tokens/", Path("list.txt").read_text()))
    assert check_run(Path("run", CONFIG), words) == ""
    for other in ("s3://bucket/list.txt", "gone.txt"):
        assert unprepared_edit(Path("run"), other) == ""


def test_a_tokenizer_of_the_command_line_is_not_said_to_be_in_the_file(
    here: Path, capsys: Capture
) -> None:
    assert init() == 0
    assert prepare() == 0
    Path("other.model").write_bytes(train_tokenizer(TEXTS, vocab_size=290))

    assert cli.main(["train", "run", "--model.tokenizer_path", "other.model"]) == 1
    assert (
        'but the command line names model.tokenizer_path = "other.model". To train with the '
        "former, leave --model.tokenizer_path out."
    ) in error_of(capsys)


def test_damaged_shards_are_told_by_prepare_not_by_init(here: Path, capsys: Capture) -> None:
    """Settings of the run, which init has yet to write, decide about some faults."""
    assert init() == prepare() == 0
    shutil.move("run", "made")
    Path("made/tokens/web/0.idx").write_bytes(b"")

    assert init("made/tokens") == 0
    assert prepare() == 1
    assert "web/0.idx" in error_of(capsys)


def test_a_named_folder_of_shards_says_how_to_name_it(here: Path, capsys: Capture) -> None:
    assert init() == 0
    assert prepare() == 0

    assert init("pages=run/tokens/web", folder="again") == 1
    error = error_of(capsys)
    assert "It holds .bin/.idx shards, whose corpora have the names of their folders: name" in error
    assert error.endswith("without pages=\n")
    assert init("run/tokens/web", folder="again") == 0


def test_each_corpus_may_have_a_key_of_its_own(here: Path, capsys: Capture) -> None:
    line = Path("text/code/0.jsonl").read_text().splitlines()[0].replace('"text"', '"content"')
    for path in Path("text/code").iterdir():
        path.write_text(f"{line}\n")
    words = ["init", "run", "--data", "text", "--tokenizer", "tokenizer.model", "--key"]

    assert init() == 1
    assert "'content'\nName the field or column of the text with --key code=NAME" in error_of(
        capsys
    )
    shutil.copytree("text/web", "text/more")
    assert cli.main([*words, "web=content"]) == 1
    assert "with --key code=NAME --key web=NAME." in error_of(capsys)
    shutil.rmtree("text/more")
    assert cli.main([*words, "cod=content"]) == 1
    assert "there is no text of a corpus 'cod', expected one of code, web" in error_of(capsys)
    assert cli.main([*words, "content", "--key", "text"]) == 1
    assert "the keys are content, text, expected one. For a corpus with" in error_of(capsys)
    assert cli.main([*words, "code=content"]) == 0
    assert tomllib.loads(Path("run", DATA).read_text())["keys"] == {"code": "content"}
    assert prepare() == 0
    assert ShardIndex.open(Path("run/tokens/code/0")).num_documents == 1
    edit('code = "content"', 'code = "text"')
    assert prepare("--overwrite") == 1
    assert "there is no key 'text', found 'content'" in error_of(capsys)
    edit('code = "text"', 'cod = "text"')
    assert prepare() == 1
    assert "[keys] names 'cod', but there is no such corpus in [corpora]. Did" in error_of(capsys)


def test_the_name_of_a_corpus_with_its_own_key_may_hold_an_equals_sign(
    here: Path, capsys: Capture
) -> None:
    """As in ``lang=en``, a folder of Hive and Spark."""
    Path("text/code").rename("text/lang=en")
    for path in Path("text/lang=en").iterdir():
        path.write_text(path.read_text().replace('"text"', '"content"'))
    words = ["init", "run", "--data", "text", "--tokenizer", "tokenizer.model"]

    assert cli.main([*words, "--key", "lang=en=content"]) == 0
    assert tomllib.loads(Path("run", DATA).read_text())["keys"] == {"lang=en": "content"}
    assert prepare() == 0


def test_a_key_for_shards_is_refused(here: Path, capsys: Capture) -> None:
    assert init() == prepare() == 0
    words = ["init", "other", "--data", "run/tokens", "--tokenizer", "tokenizer.model"]

    assert cli.main([*words, "--key", "code=content"]) == 1
    assert "no text of a corpus 'code', and shards have no key" in error_of(capsys)


def test_data_may_be_given_several_times(here: Path) -> None:
    """As ``--key`` may be: the last one must not replace the others."""
    words = ["--data", "a=text/code", "--data", "b=text/web", "--tokenizer", "tokenizer.model"]

    assert cli.main(["init", "run", *words]) == 0
    assert [*tomllib.loads(Path("run", DATA).read_text())["corpora"]] == ["a", "b"]


def test_files_beside_folders_make_one_corpus_with_a_note(
    here: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy("text/web/0.jsonl", "text/loose.jsonl")

    with caplog.at_level(logging.INFO):
        assert init() == 0
    assert (
        "text has files of its own, so it is one corpus, with those of its subfolders (code, web)"
        in (caplog.text)
    )


def test_init_reads_no_more_than_the_first_text(here: Path) -> None:
    """Later texts may have other faults, which ``prepare`` reports with their number."""
    Path("in").mkdir()
    Path("in/a.jsonl").write_text('{"text": "good"}\n{"body": "bad"}\nnot JSON\n')
    Path("in/b.jsonl").write_text("not JSON\n")

    assert init("in") == 0


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("text/web/0.jsonl", r"bytes that are not a SentencePiece model, expected one, or a token"),
        ("text/web", r"this folder has none of tokenizer\.json, .*Name a file"),
        (
            "no.model",
            r"no\.model: no such file\. Name a tokenizer\.json or \.model, or its folder",
        ),
    ],
)
def test_a_wrong_tokenizer_is_refused_in_plain_words(
    here: Path, tokenizer: str, message: str, capsys: Capture
) -> None:
    assert init(tokenizer=tokenizer) == 1
    error = error_of(capsys)
    assert re.search(message, error)
    assert "backend" not in error


def test_paths_may_begin_with_a_tilde(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell does not replace it in quotes, and not everywhere after NAME=."""
    monkeypatch.setenv("HOME", str(here))
    assert init("web=~/text/web", tokenizer="~/tokenizer.model") == 0
    edit(f"{here}/text", "~/text")
    edit(f'"{here}/tok', '"~/tok')

    assert prepare() == 0


def test_names_with_spaces_are_quoted_in_the_next_commands(here: Path, capsys: Capture) -> None:
    Path("text").rename("my text")
    assert init("my text", folder="my run") == 0
    assert cli.main(["prepare", "my run", "--workers", "1"]) == 0

    out = capsys.readouterr().out
    assert "blendtitan prepare 'my run'\n" in out
    assert "blendtitan train 'my run'\n" in out


@pytest.mark.parametrize(
    ("num_bytes", "shown"), [(5, "5 bytes"), (43_210, "43.2 kB"), (2_000_000, "2 MB")]
)
def test_sizes_have_a_unit_that_suits_them(
    here: Path, num_bytes: int, shown: str, capsys: Capture
) -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_text("a" * num_bytes)
    assert init("in") == 0

    assert shown in capsys.readouterr().out


# --- folders that cannot be written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (
            "/proc/x",
            r"/proc/x: No such file or directory\. Check the path, or, for an output, choose",
        ),
        ("file", r"file: cannot be written: File exists\. Move away the file .* another folder"),
        ("file/x", r"file/x: cannot be written: Not a directory\. Move away .* another folder"),
        ("x" * 300, r"File name too long\. Choose a shorter name"),
    ],
)
def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(
    here: Path, folder: str, message: str, capsys: Capture
) -> None:
    Path("file").touch()

    assert init(folder=folder) == 1
    assert re.search(message, error_of(capsys))


@pytest.mark.parametrize("command", ["tokenize", "mix", "merge", "demo"])
@pytest.mark.parametrize("output", ["/proc/x/y", "file/x"])
def test_every_output_that_cannot_be_written_is_an_error_with_a_remedy(
    here: Path, command: str, output: str, capsys: Capture
) -> None:
    assert init() == 0
    assert prepare() == 0
    Path("file").touch()
    words = {
        "tokenize": ["text", "--tokenizer", "tokenizer.model"],
        "mix": ["run/tokens"],
        "merge": ["run/tokens", "--target-tokens", "9"],
        "demo": [],
    }

    assert cli.main([command, *words[command], "--output", output]) == 1
    error = error_of(capsys)
    assert output.split("/")[1] in error
    assert "choose another" in error.lower(), error


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, r"No space left on device\. Free some space"),
        (errno.EACCES, r"Permission denied\. Change the permissions"),
        (errno.EROFS, r"Read-only file system\. Files cannot be changed there: choose another"),
        (errno.EISDIR, r"Is a directory\. A folder is where a file is expected"),
        (errno.EMFILE, r"Too many open files\. Raise the limit"),
    ],
)
def test_an_error_of_the_system_gets_a_remedy(
    number: int, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/x")

    monkeypatch.setattr(folder_module, "init_folder", failing)

    assert init() == 1
    assert re.search(f"blendtitan init: /data/x: {remedy}", error_of(capsys))


def test_a_full_disk_leaves_no_half_a_run_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """After some space was freed, the same command must work."""
    write = folder_module.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == "config.toml":
            raise OutputError(f"{path}: cannot be written: No space left on device.")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_atomically", full)
        assert init() == 1
    assert init() == 0


# --- prepare ------------------------------------------------------------------------------------


def test_prepare_logs_its_tokenizer_once(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not once for each corpus."""
    assert init() == 0
    with caplog.at_level(logging.INFO):
        assert prepare() == 0

    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "SentencePiece, 300 ids" in text]) == 1
    assert not [text for text in messages if "tokenizer tier" in text]  # of little text
    assert len({*messages}) == len(messages)


def test_rejected_texts_are_counted_without_a_contradiction(here: Path, capsys: Capture) -> None:
    Path("in").mkdir()
    Path("in/a.jsonl").write_text('{"text": "good"}\n{"body": "bad"}\n')
    assert init("in") == 0

    assert prepare() == 1
    error = error_of(capsys)
    assert "there is no key 'text', found 'body'" in error
    assert "--max-rejects allows, which is 0" in error
    assert "0 texts rejected" not in error
    assert prepare("--max-rejects", "1") == 0


@pytest.mark.parametrize("command", ["prepare", "tokenize"])
def test_of_many_kinds_of_rejected_texts_the_limit_stays_visible(
    here: Path, capsys: Capture, command: str
) -> None:
    Path("in").mkdir()
    kinds = ['{"text": ""}', '{"text": 1}', '{"body": ""}', '{"text": "\\ud800"}', "[]", "{"]
    Path("in/a.jsonl").write_text("\n".join(['{"text": "good"}', *kinds]))
    assert init("in") == 0

    words = ["in", "--output", "out", "--tokenizer", "tokenizer.model", "--workers", "1"]
    assert (prepare() if command == "prepare" else cli.main(["tokenize", *words])) == 1
    first = capsys.readouterr().err.rpartition(f"blendtitan {command}: ")[2].splitlines()[0]
    assert "--max-rejects allows, which is 0" in first


def test_one_prepare_finds_the_wrong_keys_of_all_corpora(here: Path, capsys: Capture) -> None:
    for number in range(5):
        Path(f"in/c{number}").mkdir(parents=True)
        Path(f"in/c{number}/a.jsonl").write_text(f'{{"text": "good"}}\n{{"body{number}": ""}}\n')
    assert init("in") == 0
    for number in range(1, 5):
        Path(f"in/c{number}/a.jsonl").write_text(f'{{"body{number}": ""}}\n')

    assert prepare() == 1
    error = error_of(capsys)
    assert error.startswith("blendtitan prepare: 5 errors; stopped")
    text = Path(error.rpartition("Traceback: ")[2].strip()).read_text()
    assert all(f"c{number}/a.jsonl, byte " in text for number in range(5))


def test_one_prepare_names_all_corpora_that_are_missing(here: Path, capsys: Capture) -> None:
    assert init() == 0
    for name in ("code", "web"):
        Path("text", name).rename(f"moved_{name}")

    assert prepare() == 1
    error = error_of(capsys)
    assert "text/code: there is no such file or folder" in error
    assert "text/web: there is no such file or folder" in error


def test_init_names_the_wrong_keys_of_all_corpora(here: Path, capsys: Capture) -> None:
    for name in ("a", "b"):
        Path("in", name).mkdir(parents=True)
        Path("in", name, "a.jsonl").write_text('{"body": "good"}\n')

    assert init("in") == 1
    error = error_of(capsys)
    assert "in/a/a.jsonl, byte 0: there is no key 'text', found 'body'" in error
    assert "in/b/a.jsonl, byte 0: there is no key 'text', found 'body'" in error
    assert error.count("--key") == 1


def test_a_long_error_is_shortened_and_a_file_has_all_of_it(here: Path, capsys: Capture) -> None:
    Path("in").mkdir()
    bad = [f'{{"text": {n * "["}' for n in range(1, 12)]
    Path("in/a.jsonl").write_text("\n".join(['{"text": "good"}', *bad]))
    assert init("in") == 0

    assert prepare() == 1
    path = Path(error_of(capsys).rpartition("Traceback: ")[2].strip())
    assert path.read_text().count("not JSON") > 5
    path.unlink()


def test_epochs_above_the_limit_are_refused_before_any_work(here: Path, capsys: Capture) -> None:
    assert init() == 0
    edit("web = 1.0", "web = 5.0")

    assert prepare() == 1
    assert re.search(r"(?s)web 5\..*--max-epochs.*\[epochs\] of run/data", error_of(capsys))
    assert not Path("run/tokens").exists()
    assert prepare("--max-epochs", "5") == 0


def test_a_corpus_without_documents_is_an_error(here: Path, capsys: Capture) -> None:
    assert init() == 0
    for path in Path("text/web").iterdir():
        path.write_text("")

    assert prepare() == 1
    assert "the corpus 'web' has no document. Remove it from [corpora] and" in error_of(capsys)


def test_a_corpus_may_be_added_and_removed(here: Path) -> None:
    assert init("text/code") == 0
    assert prepare() == 0
    edit("[corpora]", f'[corpora]\nweb = "{here}/text/web"')
    assert prepare() == 0
    assert Path("run", FILE_LIST).read_text().count(" web\n") == 4
    edit(f'\nweb = "{here}/text/web"', "")
    assert prepare() == 0
    assert " web\n" not in Path("run", FILE_LIST).read_text()


def test_a_removed_text_is_deleted_on_request(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert init() == 0
    assert prepare() == 0
    Path("text/web/3.jsonl").unlink()

    assert prepare() == 0
    assert "Delete it with --prune" in caplog.text
    assert Path("run", FILE_LIST).read_text().count(" web\n") == 3
    assert Path("run/tokens/web/3.bin").exists()
    assert prepare("--prune") == 0
    assert Path("run", FILE_LIST).read_text().count(" web\n") == 3
    assert not Path("run/tokens/web/3.bin").exists()


def test_another_tokenizer_replaces_the_shards_on_request(here: Path, capsys: Capture) -> None:
    assert init() == 0
    assert prepare() == 0
    Path("tokenizer.model").write_bytes(train_tokenizer(TEXTS, vocab_size=290))

    assert prepare() == 1
    assert "Replace the shards with --overwrite" in error_of(capsys)
    assert prepare("--overwrite") == 0
    assert prepare() == 0


def test_a_tokenizer_that_only_one_file_names_is_an_error_that_says_what_to_set(
    here: Path, capsys: Capture
) -> None:
    """``prepare`` reads the tokenizer of one file, and ``train`` that of the other."""
    assert init() == 0
    assert prepare() == 0
    Path("other.model").write_bytes(train_tokenizer(TEXTS, vocab_size=290))
    edit("tokenizer.model", "other.model")
    advice = f'set model.tokenizer_path = "{here}/other.model" in config.toml.'

    assert prepare("--overwrite") == 0
    assert advice in capsys.readouterr().err
    for command in ("train", "plan"):
        assert cli.main([command, "run"]) == 1
        assert advice in error_of(capsys)
    config = Path("run/config.toml")
    config.write_text(config.read_text().replace("tokenizer.model", "other.model"))
    assert cli.main(["plan", "run"]) == 0
    assert prepare() == 0
    assert "set model.tokenizer_path" not in capsys.readouterr().out


def test_shards_of_another_tokenizer_are_named_by_corpus_also_if_the_run_does_not_read_them(
    here: Path, capsys: Capture
) -> None:
    """The tokenizer is shown with the same hash as by ``train``."""
    assert init() == 0
    assert prepare() == 0
    own = read_record(Path("run/tokens/web/0"))
    assert own is not None
    Path("tokenizer.model").write_bytes(train_tokenizer(TEXTS, vocab_size=290))
    edit(f'web = "{here}/text/web"\n', "")
    edit("web = 1.0\n", "")

    assert prepare() == 1
    error = error_of(capsys)
    assert f"/tokenizer.model (hash {own.tokenizer.hash[2:14]})" in error
    assert "this command does not make those of corpus 'web': delete them, or keep them" in error
    assert "with --overwrite, which replaces those of corpus 'code'" in error
    assert prepare("--overwrite") == 0
    assert prepare() == 1
    assert "keep them unchanged with --overwrite. Or" in error_of(capsys)
    shutil.rmtree("run/tokens/web")
    assert prepare() == 0


@pytest.mark.parametrize(
    "words",
    [
        ("train", "run"),
        ("plan", "run"),
        ("explain", "run", "--step", "1"),
        ("report", "run"),
        ("sweep", "sweep", "--config", "run", "--runs", "2"),
    ],
)
def test_before_prepare_every_command_that_needs_the_data_says_to_run_it(
    here: Path, capsys: Capture, words: tuple[str, ...]
) -> None:
    assert init() == 0

    assert cli.main(words) == 1
    assert "because the data is not prepared. Run blendtitan prepare" in error_of(capsys)


def test_before_training_an_audit_says_to_train(here: Path, capsys: Capture) -> None:
    assert init() == 0

    assert cli.main(["audit", "run"]) == 1
    assert "has not saved a checkpoint yet. Run blendtitan train run" in error_of(capsys)


@pytest.mark.parametrize("what", ["text/web", "tokenizer.model"])
def test_an_input_that_was_moved_is_named_with_the_file_that_names_it(
    here: Path, what: str, capsys: Capture
) -> None:
    assert init() == 0
    Path(what).rename("elsewhere")

    assert prepare() == 1
    error = error_of(capsys)
    assert f"{here / what}: " in error
    assert "no such file" in error
    assert error.endswith("The corpora, the tokenizer, key and txt are set in run/data.toml.\n")


def test_another_key_needs_overwrite_and_is_named_with_the_file_that_names_it(
    here: Path, capsys: Capture
) -> None:
    assert init() == 0
    assert prepare() == 0
    data = Path("run/data.toml")
    data.write_text(data.read_text().replace('key = "text"', 'key = "body"'))

    assert prepare() == 1
    error = error_of(capsys)
    assert "was made from key 'text', but this command uses key 'body'. Replace" in error
    assert error.endswith("The corpora, the tokenizer, key and txt are set in run/data.toml.\n")


def test_a_wrong_option_is_not_blamed_on_the_data(here: Path, capsys: Capture) -> None:
    assert init() == 0

    assert cli.main(["prepare", "run", "--workers", "0"]) == 1
    assert error_of(capsys).endswith("workers is 0, expected a whole number of at least 1\n")


def test_lines_of_text_files_stay_documents_without_repeating_the_option(
    here: Path, capsys: Capture
) -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_text("One line.\nAnother line.\n")
    assert init("in", "--txt", "line") == 0
    assert prepare() == 0
    assert ShardIndex.open(Path("run/tokens/in/a")).num_documents == 2
    assert prepare("--txt", "line") == 0

    assert prepare("--txt", "file") == 1
    error = error_of(capsys)
    assert "made with --txt line, but this command uses --txt file. Give --txt line" in error
    assert error.endswith("The corpora, the tokenizer, key and txt are set in run/data.toml.\n")
    assert prepare("--txt", "file", "--overwrite") == 0
    assert ShardIndex.open(Path("run/tokens/in/a")).num_documents == 1


def test_a_plan_without_prepared_data_names_the_command_that_makes_it(
    here: Path, capsys: Capture
) -> None:
    assert init() == 0
    assert cli.main(["plan", "run"]) == 1
    assert "the data is not prepared. Run blendtitan prepare" in error_of(capsys)

    assert prepare() == 0
    next(Path("run/tokens/web").glob("*.bin")).unlink()
    assert cli.main(["plan", "run"]) == 1
    assert "To make the shards that are missing: blendtitan prepare" in error_of(capsys)


def test_a_file_is_no_run_folder(here: Path, capsys: Capture) -> None:
    assert init() == 0

    assert cli.main(["prepare", "run/data.toml"]) == 1
    assert "run/data.toml: is a file, expected the folder that init" in error_of(capsys)


def test_prepare_works_from_any_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert init() == 0
    monkeypatch.chdir("/")

    assert cli.main(["prepare", str(here / "run"), "--workers", "1"]) == 0


def test_a_folder_above_the_folder_of_corpora_is_a_warning(here: Path, capsys: Capture) -> None:
    """``mix my-run`` would otherwise merge all corpora of its tokens into one, silently."""
    assert init() == 0
    assert prepare() == 0
    capsys.readouterr()
    advice = "For the corpora code, web: did you mean run/tokens?"

    assert cli.main(["mix", "run", "--output", "list.txt"]) == 0
    assert advice in capsys.readouterr().err
    assert init("run", folder="second") == 0
    assert advice in capsys.readouterr().err
    assert init("run/tokens", folder="third") == 0
    shown = capsys.readouterr()
    assert "did you mean" not in shown.err
    rows = [line.split() for line in shown.out.splitlines()]
    for corpus in ("code", "web"):
        assert [corpus, f"{len([*Path('run/tokens', corpus).glob('*.bin')])}"] in rows
