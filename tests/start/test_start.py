"""From text and a tokenizer to a run: init, prepare and train."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from blendtitan import cli
from blendtitan.commands.arguments import run_path
from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.failures import INTERRUPTED_LINE
from blendtitan.prepare.demo import train_tokenizer, write_jsonl
from blendtitan.runs.run_folder import DATA
from blendtitan.settings.templates import TEMPLATES
from blendtitan.start.check import check_run
from blendtitan.start.folder import init_folder, prepare_folder, read_data_config
from blendtitan.start.train import Ranks, config_path, train
from blendtitan.storage.file_list import read_file_list
from tests.conftest import wait_until
from tests.test_docs import ROOT, code_blocks

RUN = "tokenizer = 'a'\n[corpora]\nweb = 'a'\n"
SHORT = "--validation.no_enable --checkpoint.interval 2 --training.global_batch_size 4"
SHORT += " --blendcorpus.max_epochs 0"
TEXTS = [f"Document {n}. " + " ".join(f"word{n * k % 97}" for k in range(60)) for n in range(99)]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora of text, and a tokenizer beside them."""
    folder = tmp_path_factory.mktemp("start")
    for corpus in ("code", "web"):
        write_jsonl(folder / "text" / corpus, TEXTS)
    (folder / "tokenizer.model").write_bytes(train_tokenizer(TEXTS, vocab_size=300))
    return folder


def init(folder: Path, text: Path, *data: str, template: str = "debug") -> list[str]:
    paths = data or (str(text / "text"),)
    found = init_folder(folder, paths, text / "tokenizer.model", template=template)
    return [corpus.name for corpus in found.corpora]


def weights(folder: Path) -> dict[str, float]:
    sums: dict[str, float] = {}
    for entry in read_file_list(folder / "file_list.txt"):
        sums[entry.corpus] = sums.get(entry.corpus, 0) + entry.weight
    return sums


def test_folders_below_a_folder_are_corpora(tmp_path: Path, text: Path) -> None:
    assert init(tmp_path / "run", text) == ["code", "web"]


def test_a_folder_of_files_is_one_corpus(tmp_path: Path, text: Path) -> None:
    assert init(tmp_path / "a", text, str(text / "text/web")) == ["web"]
    assert init(tmp_path / "b", text, f"crawl={text}/text/web") == ["crawl"]
    assert init(tmp_path / "c", text, f"all={text}/text") == ["all"]
    assert init(tmp_path / "d", text, f"{text}/text/web/*.jsonl") == ["web"]


def test_two_corpora_of_one_name_must_be_named(tmp_path: Path, text: Path) -> None:
    paths = (str(text / "text"), str(text / "text/web"))

    with pytest.raises(ConfigError, match=r"would become the corpus 'web'.*--data NAME=PATH"):
        init(tmp_path / "run", text, *paths)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_never_overwritten(tmp_path: Path, text: Path) -> None:
    init(tmp_path, text)
    (tmp_path / "config.toml").write_text("mine")

    with pytest.raises(ConfigError, match=r"config\.toml exists, so .* is a run folder already"):
        init(tmp_path, text)
    assert (tmp_path / "config.toml").read_text() == "mine"


@pytest.mark.parametrize("template", sorted(path.stem for path in TEMPLATES.glob("*.toml")))
def test_every_template_is_a_configuration(tmp_path: Path, text: Path, template: str) -> None:
    init(tmp_path, text, template=template)
    prepare_folder(tmp_path, workers=1)

    # The text is too short to train any of them.
    world_size = 1 if template == "debug" else 64
    check_run(tmp_path / "config.toml", world_size=world_size, reads_data=False)
    config = tomllib.loads((tmp_path / "config.toml").read_text())
    assert config["model"]["tokenizer_path"] == str(text / "tokenizer.model")
    assert config["blendcorpus"]["data_file_list"] == str(tmp_path / "file_list.txt")


def test_an_unknown_template_is_an_error_that_lists_them(tmp_path: Path, text: Path) -> None:
    with pytest.raises(ConfigError, match=r"no template 'llama9', expected one of debug, "):
        init(tmp_path, text, template="llama9")


def test_a_hugging_face_tokenizer_is_recognised(
    tmp_path: Path, text: Path, word_tokenizer: Path
) -> None:
    data = [str(text / "text")]
    init_folder(tmp_path / "run", data, word_tokenizer, template="debug")
    model = tomllib.loads((tmp_path / "run/config.toml").read_text())["model"]

    assert model["tokenizer_path"] == str(word_tokenizer / "tokenizer.json")


def test_a_wrong_key_of_the_text_is_an_error_that_says_where_it_is_set(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tokenizer = [str(text / "text")], text / "tokenizer.model"
    init_folder(tmp_path, data, tokenizer, template="debug")
    path = tmp_path / DATA
    path.write_text(path.read_text().replace('key = "text"', 'key = "body"'))

    assert cli.main(["prepare", str(tmp_path), "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "there is no key 'body', found 'text'" in error
    assert error.endswith(f"The corpora, the tokenizer, key and txt are set in {path}.\n")


def test_a_tokenizer_without_an_eos_is_refused_at_once(
    tmp_path: Path, text: Path, word_tokenizer: Path
) -> None:
    """Every document must end in one, so ``prepare`` would fail."""
    shutil.copy(word_tokenizer / "tokenizer.json", tmp_path)
    data = [str(text / "text")]

    with pytest.raises(ConfigError, match=r"has no EOS, .*tokenizer_config\.json .* eos_token"):
        init_folder(tmp_path / "run", data, tmp_path, template="debug")
    assert not (tmp_path / "run").exists()


def test_of_a_run_folder_the_tools_read_the_output_folder(tmp_path: Path, text: Path) -> None:
    """It has a configuration, too, which knows nothing of what was trained."""
    init(tmp_path, text)
    assert run_path(str(tmp_path)) == tmp_path
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/config.toml").touch()

    assert run_path(str(tmp_path)) == tmp_path / "outputs"
    assert run_path(str(tmp_path / "config.toml")) == tmp_path / "config.toml"
    assert run_path(str(tmp_path / "outputs")) == tmp_path / "outputs"


def test_after_a_move_the_error_says_which_paths_to_correct(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "a", text)
    prepare_folder(tmp_path / "a", workers=1)
    (tmp_path / "a").rename(tmp_path / "b")

    assert cli.main(["train", str(tmp_path / "b"), "--nproc", "1"]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/a/file_list.txt: there is no such file" in error
    assert f"correct the paths in {tmp_path}/b/config.toml and in {DATA}" in error


def test_epochs_are_weights(tmp_path: Path, text: Path) -> None:
    init(tmp_path, text)
    path = tmp_path / "data.toml"
    path.write_text(path.read_text().replace("web = 1.0", "web = 0.5"))
    prepare_folder(tmp_path, workers=1)
    by_corpus = weights(tmp_path)

    assert by_corpus["web"] == by_corpus["code"] / 2


@pytest.mark.parametrize(
    ("old", "new", "log"),
    [
        (r'web = ".*"\n', "", "left out of the run (not named in data.toml): web"),
        ("web = 1.0", "web = 0", "left out of the run (0 epochs in data.toml): web"),
    ],
)
def test_a_corpus_can_be_left_out_without_deleting_its_shards(
    tmp_path: Path, text: Path, old: str, new: str, log: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And read again later, without tokenising it again."""
    caplog.set_level(logging.INFO)
    init(tmp_path, text)
    prepare_folder(tmp_path, workers=1)
    both, path = weights(tmp_path), tmp_path / "data.toml"
    content = path.read_text()
    without = re.sub(r"(?m)^web = 1.0\n", "", content) if not new else content
    path.write_text(re.sub(old, new, without))
    prepare_folder(tmp_path, workers=1)

    assert weights(tmp_path) == {"code": both["code"]}
    assert log in caplog.text
    assert (tmp_path / "tokens/web").is_dir()
    path.write_text(content)
    prepare_folder(tmp_path, workers=1)
    assert weights(tmp_path) == both


def test_existing_shards_can_be_left_out_by_their_epochs(tmp_path: Path, text: Path) -> None:
    init(tmp_path / "first", text)
    prepare_folder(tmp_path / "first", workers=1)
    init(tmp_path, text, str(tmp_path / "first/tokens"))
    path = tmp_path / "data.toml"
    path.write_text(path.read_text() + "web = 0\n")
    prepare_folder(tmp_path)

    assert weights(tmp_path).keys() == {"code"}


def test_shards_of_another_tokenizer_are_an_error(
    tmp_path: Path, text: Path, word_tokenizer: Path
) -> None:
    init(tmp_path, text)
    prepare_folder(tmp_path, workers=1)
    path = tmp_path / "data.toml"
    path.write_text(path.read_text().replace(str(text / "tokenizer.model"), str(word_tokenizer)))

    with pytest.raises(
        BlendTitanError, match=r"with tokenizer \S+/tokenizer\.model \(hash \w+\), .* --overwrite"
    ):
        prepare_folder(tmp_path, workers=1)


def test_shards_are_used_as_they_are(tmp_path: Path, text: Path) -> None:
    init(tmp_path / "first", text)
    prepare_folder(tmp_path / "first", workers=1)
    init(tmp_path / "second", text, str(tmp_path / "first/tokens"))
    prepare_folder(tmp_path / "second")

    assert weights(tmp_path / "second") == weights(tmp_path / "first")
    assert not (tmp_path / "second/tokens").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tokeniser = 'a'", r"data\.toml: unknown key tokeniser. Did you mean tokenizer\?"),
        (
            "zzz = 'a'",
            r"unknown key zzz. The keys are corpora, epochs, key, keys, shards, tokenizer, txt",
        ),
        ("tokenizer = 1", r"data\.toml: tokenizer is 1, expected a path in quotes"),
        ("key = ['text']", r"data\.toml: key is \['text'\], expected a name, such as \"text\""),
        ("txt = 'lines'", r"data\.toml: txt is 'lines', expected \"file\" or \"line\""),
        ("shards = 'a'", r"data\.toml: shards is 'a', expected a list of paths in quotes"),
        ("shards = [1]", r"data\.toml: shards is \[1\], expected a list of paths in quotes"),
        ("corpora = 'a'", r"data\.toml: corpora is 'a', expected a table \[corpora\], and below"),
        ("[corpora]\na = 1", r"data\.toml: corpora\.a is 1, expected a path in quotes"),
        ("[corpora]\n'a/b' = 'x'", r"'a/b' cannot be the name of a corpus"),
        ("epochs = 2", r"data\.toml: epochs is 2, expected a table \[epochs\]"),
        ("[epochs]\na = 'two'", r"data\.toml: epochs\.a is 'two', expected a number of at least 0"),
        ("[epochs]\na = -1", r"data\.toml: epochs\.a is -1, expected a number of at least 0"),
        ("[epochs]\nkey = 'b'", r"epochs\.key is 'b', .* To set key, write it above all tables"),
        ("tokenizer = 'a'", r"data\.toml: names no corpus, expected \[corpora\] or shards"),
        ("tokenizer", r"data\.toml: not a TOML file: "),
        ("[corpora]\nweb = 'a'", r"data\.toml: names no tokenizer, expected tokenizer = "),
        (f"{RUN}[epochs]\nwbe = 1", r"data\.toml: \[epochs\] names 'wbe', .*Did you mean web\?"),
        (f"{RUN}[epochs]\nweb = 0", r"\[epochs\] gives 0 to every corpus, expected one"),
        (f"{RUN}[epochs]\nzzz = 1", r"\[epochs\] names 'zzz', .*The corpora are web"),
        (f"shards = ['no']\n{RUN}", r"no: there is no such file"),
    ],
)
def test_what_data_toml_must_hold(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.toml").write_text(content)

    with pytest.raises(ConfigError, match=message):
        read_data_config(tmp_path / "data.toml")


def test_what_is_missing_is_an_error_that_names_the_command(tmp_path: Path, text: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.toml: there is no such file.*blendtitan init"):
        prepare_folder(tmp_path)
    with pytest.raises(
        ConfigError, match=r"config\.toml: there is no such file or run folder.*blendtitan init"
    ):
        config_path(tmp_path)
    init(tmp_path, text)
    with pytest.raises(ConfigError, match=r"not prepared. Run blendtitan prepare"):
        check_run(config_path(tmp_path))


def test_a_wrong_key_is_an_error_before_a_process_starts(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path, text)
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace("\nsteps =", "\nstep ="))

    assert cli.main(["train", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: unknown key training.step" in line
    assert "training.steps" in line


def test_an_unknown_option_shows_the_usage_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", str(tmp_path), "--ngpu", "4"])

    assert "usage: blendtitan train" in capsys.readouterr().err


def chosen(**options: Any) -> Ranks:
    return Ranks.chosen(**{"nproc": 2, "nnodes": 1, "rendezvous": None, "job_id": None} | options)


def test_rank_0_is_shown_unless_log_rank_names_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOG_RANK", raising=False)
    assert chosen().shown == {0}
    monkeypatch.setenv("LOG_RANK", "0,1")
    assert chosen().shown == {0, 1}
    monkeypatch.setenv("LOG_RANK", "2")
    with pytest.raises(ConfigError, match=r"LOG_RANK is '2', expected ranks .* 0 to 1, "):
        chosen()


def test_init_names_the_folders_that_hold_no_text(
    tmp_path: Path, text: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each first-level folder with text is a corpus, so one without would go unnoticed."""
    for name in ("data/web", "data/empty/below", "data/.hidden", "data/notes"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/web/a.txt").write_text("text")
    (tmp_path / "data/notes/README.md").write_text("no text")
    data = str(tmp_path / "data")

    assert init(tmp_path / "run", text, data) == ["web"]
    assert f"{data}: folders without text are left out: empty, notes" in caplog.text


INTERRUPTED_RANK = """
import os, sys, time
from pathlib import Path
from blendtitan.failures import INTERRUPTED_LINE

Path(sys.argv[1], os.environ["RANK"]).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    if os.environ["RANK"] == "0":
        print(INTERRUPTED_LINE, file=sys.stderr)
    sys.exit(130)
"""
LAUNCHER = """
import sys
from blendtitan.start.launch import launch
from blendtitan.start.train import Ranks

ranks = Ranks.chosen(nproc=2, nnodes=1, rendezvous=None, job_id=None)
sys.exit(launch(sys.executable, *sys.argv[1:], ranks=ranks))
"""


@pytest.mark.parametrize("shown", ["0", "1", "0,1"])
def test_ctrl_c_is_told_once_whichever_ranks_are_shown(tmp_path: Path, shown: str) -> None:
    """Rank 0 tells of it, whose output may be hidden."""
    program = tmp_path / "rank.py"
    program.write_text(INTERRUPTED_RANK)
    words = [sys.executable, "-c", LAUNCHER, str(program), str(tmp_path)]
    source = str(Path(cli.__file__).parents[1])
    run = subprocess.Popen(
        words,
        env=os.environ | {"LOG_RANK": shown, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: all((tmp_path / rank).exists() for rank in "01") or run.poll() is not None)
    time.sleep(0.2)  # the ranks begin to wait
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)

    assert run.returncode == 130, output
    assert output.count(INTERRUPTED_LINE) == 1


def test_several_machines_need_a_place_to_meet() -> None:
    with pytest.raises(ConfigError, match=r"--rendezvous is None, expected HOST:PORT, .* 2 mach"):
        chosen(nnodes=2)
    with pytest.raises(ConfigError, match="--rendezvous is 'node0', expected HOST:PORT"):
        chosen(nnodes=2, rendezvous="node0")
    with pytest.raises(ConfigError, match="--nnodes is 0, expected at least 1"):
        chosen(nnodes=0)
    with pytest.raises(ConfigError, match="--nproc is 0, expected at least 1"):
        chosen(nproc=0)


@pytest.mark.parametrize(("node", "is_host"), [("0", True), ("1", False), (None, None)])
def test_the_scheduler_says_which_machine_is_first(
    monkeypatch: pytest.MonkeyPatch, node: str | None, is_host: bool | None
) -> None:
    monkeypatch.delenv("LOG_RANK", raising=False)
    if node is not None:
        monkeypatch.setenv("SLURM_NODEID", node)
    ranks = chosen(nnodes=2, rendezvous="node0:29500", job_id="7")

    assert (ranks.rendezvous, ranks.job_id, ranks.is_host) == ("node0:29500", "7", is_host)
    assert ranks.shown == (set() if node == "1" else {0}), "only the first shows the run"


@pytest.mark.parametrize("node", ["0", "1"])
def test_one_machine_of_several_says_that_training_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], node: str
) -> None:
    monkeypatch.setenv("SLURM_NODEID", node)
    monkeypatch.delenv("LOG_RANK", raising=False)
    monkeypatch.setattr("blendtitan.start.launch.launch", lambda *words, ranks: 0)
    # Training sets them, if nobody else has.
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ranks = chosen(nnodes=2, rendezvous="node0:29500")

    with pytest.raises(SystemExit):
        train(Path("run/config.toml"), [], ranks)
    assert (
        capsys.readouterr().out
        == {
            "0": "Starting 2 processes of run/config.toml\n",
            "1": "",
        }[node]
    )


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_init_writes_a_job_script(
    tmp_path: Path, text: Path, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tokenizer = str(text / "text"), str(text / "tokenizer.model")
    words = ["init", str(tmp_path), "--data", data, "--tokenizer", tokenizer]

    assert cli.main([*words, "--scheduler", scheduler]) == 0
    assert f"{tmp_path}/{scheduler}.sh" in capsys.readouterr().out.splitlines()[-1]
    assert "blendtitan train --nnodes" in (tmp_path / f"{scheduler}.sh").read_text()


@pytest.mark.slow
def test_the_quick_start_goes_from_text_to_a_report(tmp_path: Path, text: Path) -> None:
    """Its five commands, with real processes, in a folder with text. Two ranks resume."""
    (tmp_path / "text").symlink_to(text / "text")
    (tmp_path / "tokenizer.model").symlink_to(text / "tokenizer.model")
    (block,) = code_blocks(ROOT / "docs/quickstart.md", "bash")
    train = "blendtitan train my-run"
    assert block.count(train) == 2
    block = block.replace(f"{train}\n", f"{train} --training.steps 2\n")
    block = block.replace("steps 60", "steps 4 --nproc 2").replace(train, f"{train} {SHORT}")
    run = subprocess.run(
        ["bash", "-exc", block],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    first, second = run.stdout.split("+ blendtitan train my-run")[1:]

    assert "Starting 1 process of my-run/config.toml" in first.partition("INFO")[0]
    assert "Starting 2 processes of my-run/config.toml" in second.partition("INFO")[0]
    assert "step:  1  loss:" in first
    assert "step:  2  loss:" in first
    assert "step:  1  loss:" not in second
    assert "step:  4  loss:" in second
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
