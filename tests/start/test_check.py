"""What a run cannot do is an error before its processes start."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from blendtitan import DataLoader, build_datasets, cli
from blendtitan.batch_schedule import BatchStage, saved_schedule, with_jumps
from blendtitan.claims.held import hold_claim, release_claim
from blendtitan.errors import BlendTitanError, ConfigError, MissingShardError
from blendtitan.failures import MAX_LINES
from blendtitan.order.course import Skips
from blendtitan.prepare.demo import train_tokenizer, write_jsonl
from blendtitan.runs.open import read_run
from blendtitan.settings.toml import read_keys
from blendtitan.start.check import check_run
from blendtitan.start.folder import init_folder, prepare_folder
from tests.runs.test_audit import save
from tests.runs.test_explain import trained
from tests.start.test_start import TEXTS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two corpora, ready to train."""
    folder = tmp_path_factory.mktemp("check")
    for corpus in ("code", "web"):
        write_jsonl(folder / "text" / corpus, TEXTS)
    tokenizer = folder / "tokenizer.model"
    tokenizer.write_bytes(train_tokenizer(TEXTS, vocab_size=300))
    run = folder / "run"
    init_folder(run, [str(folder / "text")], tokenizer, template="debug")
    prepare_folder(run, workers=1)
    return run


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(prepared, tmp_path / "run")
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace(str(prepared), str(tmp_path / "run")))
    return tmp_path / "run"


SHORT = ["--training.steps=4"]


def test_an_end_of_the_job_that_cannot_be_read_is_an_error_at_once(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLENDTITAN_END_TIME", "24:00:00")

    with pytest.raises(ConfigError, match=r"BLENDTITAN_END_TIME is '24:00:00', expected the time"):
        check_run(run / "config.toml", SHORT)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.name=lama3", r"^model\.name is 'lama3', expected one of .* mean llama3\?"),
        ("--model.flavor=8b", r"^model\.flavor is '8b', expected one of .* Did you mean 8B\?"),
        ("--training.seq_len=200000", r"^training\.seq_len is 200,000, expected at most 131,072"),
        ("--model.vocab_size=64", r"^model\.vocab_size is 64, expected at least 300, the token"),
        ("--training.steps=9999", r"more often than max_epochs = 4 allows: 'code' \d+ times"),
        ("--blendcorpus.split=100,0,0", r"no corpus has documents in the valid split, with "),
        ("--training.steps=0", "command line: training.steps is 0, expected a whole number of"),
        (
            "--lr_scheduler.warmup_steps=-1",
            "command line: lr_scheduler.warmup_steps is -1, expected a whole number of at least 0",
        ),
        (
            "--checkpoint.interval=0",
            r"^command line: checkpoint\.interval is 0, expected a whole n",
        ),
        ("--guards.margin_seconds=-1", r"^guards\.margin_seconds is -1, expected a number of at l"),
        ("--training.seed", r"^command line: --training\.seed has no value, expected a whole num"),
        (
            "--blendcorpus.split=90,5,6,7",
            r"^command line: blendcorpus\.split is '90,5,6,7', which",
        ),
        ("--blendcorpus.split=0,100,0", r"^command line: blendcorpus\.split is '0,100,0', which"),
        (
            "--blendcorpus.segment=[{from_step = 1, shares = {nope = 1}}]",
            r"^command line: \[\[blendcorpus\.segment\]\] 1 .* names the corpus 'nope', expected",
        ),
        (
            "--training.seq_len=100000",
            r"^training\.seq_len is 100,000, but in the train split the longest shard of 'cod",
        ),
        ("--checkpoint.load_step=7", r"load_step is 7, .* checkpoint in .*: found none\."),
    ],
)
def test_a_setting_that_only_training_would_notice_is_an_error_at_once(
    run: Path, argument: str, message: str
) -> None:
    """Four ranks need half a minute to notice, on a busy machine more."""
    config = run / "config.toml"
    check_run(config, SHORT, world_size=4)

    with pytest.raises(BlendTitanError, match=message):
        check_run(config, [*SHORT, argument], world_size=4)


@pytest.mark.parametrize(
    ("world_size", "arguments", "numbers"),
    [
        (3, [], "1 or 2 or 4"),
        (3, ["--parallelism.tensor_parallel_degree=2"], "2 or 4"),
        (2, ["--training.local_batch_size=3"], ""),
    ],
)
def test_a_wrong_number_of_processes_is_an_error_that_names_others(
    run: Path, world_size: int, arguments: list[str], numbers: str
) -> None:
    """The settings of the template have 8 samples per step, in micro batches of 2."""
    with pytest.raises(ConfigError) as raised:
        check_run(run / "config.toml", [*SHORT, *arguments], world_size=world_size)

    notes = [f"With these settings a run has {numbers} processes."] if numbers else []
    assert getattr(raised.value, "__notes__", []) == notes


def test_context_parallelism_needs_an_accelerator(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SHORT, "--parallelism.context_parallel_degree=2"]
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    check_run(run / "config.toml", words, world_size=2)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)

    with pytest.raises(ConfigError, match=r"context_parallel_degree is 2, expected 1 on a CPU"):
        check_run(run / "config.toml", words, world_size=2)


def test_a_sample_that_tensor_parallel_ranks_cannot_divide_is_an_error_at_once(run: Path) -> None:
    arguments = [*SHORT, "--parallelism.tensor_parallel_degree=3"]
    length = r"seq_len is 256, expected a multiple of 3 .*tensor_parallel_degree 3\. Set .* to 255,"

    with pytest.raises(ConfigError, match=length):
        check_run(run / "config.toml", arguments, world_size=3)
    check_run(run / "config.toml", [*arguments, "--training.seq_len=255"], world_size=3)
    whole = "--parallelism.no_enable_sequence_parallel"
    check_run(run / "config.toml", [*arguments, whole], world_size=3)


def test_context_parallel_ranks_take_two_parts_of_a_sample(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    degrees = [f"--parallelism.{kind}_parallel_degree=2" for kind in ("tensor", "context")]
    arguments = [*SHORT, *degrees, "--training.seq_len"]

    check_run(run / "config.toml", [*arguments, "248"], world_size=4)
    with pytest.raises(ConfigError, match=r"250, expected a multiple of 8 .*context.* to 248, or"):
        check_run(run / "config.toml", [*arguments, "250"], world_size=4)


def test_a_model_of_a_module_of_ones_own_is_left_to_the_trainer(run: Path) -> None:
    words = [*SHORT, "--model.flavor=mine", "--experimental.custom_import=my_models"]

    check_run(run / "config.toml", words)


def test_of_a_deleted_shard_the_error_names_the_command_that_makes_it_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = sorted(run.glob("tokens/web/*.bin"))[:1]
    shard.unlink()

    assert cli.main(["train", str(run), "--nproc", "2", *SHORT]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"blendtitan train: {shard}: cannot be ")
    assert last == f"To make the shards that are missing: blendtitan prepare {run}"
    prepare_folder(run, workers=1)
    check_run(run / "config.toml", SHORT)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@pytest.mark.parametrize("size", [0, 50])
def test_of_a_truncated_shard_the_error_names_the_command_that_makes_it_again(
    run: Path, capsys: pytest.CaptureFixture[str], suffix: str, size: int
) -> None:
    shard = min(run.glob(f"tokens/web/*{suffix}"))
    os.truncate(shard, size)

    assert cli.main(["train", str(run), "--nproc", "2", *SHORT]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last == f"To make the damaged shard again: blendtitan prepare {run}"
    prepare_folder(run, workers=1)
    check_run(run / "config.toml", SHORT)


def test_of_a_shard_that_prepare_did_not_make_another_remedy_is_given(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "tokens/web").rename(tmp_path / "elsewhere")
    listed = (run / "file_list.txt").read_text().replace("tokens/web", f"{tmp_path}/elsewhere")
    (run / "file_list.txt").write_text(listed)
    os.truncate(min(tmp_path.glob("elsewhere/*.bin")), 50)

    assert cli.main(["train", str(run), "--nproc", "2", *SHORT]) == 1
    error = capsys.readouterr().err
    assert "copy both again" in error
    assert "blendtitan prepare" not in error


def test_torchtitans_main_branch_is_refused_because_it_reads_no_toml(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own packaging calls it 0.2.2, so its modules tell."""
    (tmp_path / "checkout/torchtitan/components/data").mkdir(parents=True)
    (tmp_path / "checkout/torchtitan/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "checkout")
    monkeypatch.delitem(sys.modules, "torchtitan", raising=False)

    with pytest.raises(ConfigError, match="main branch is installed, expected a release"):
        check_run(run / "config.toml")


def test_while_a_job_trains_in_the_folder_this_is_the_error(run: Path) -> None:
    """Also if data was changed meanwhile, so that the second job could not continue anyway."""
    shutil.rmtree(run / "tokens/web")
    hold_claim(run / "outputs")
    try:
        with pytest.raises(
            ConfigError, match="outputs: another job trains in this folder: process"
        ):
            check_run(run / "config.toml", SHORT)
    finally:
        release_claim()
    with pytest.raises(MissingShardError):
        check_run(run / "config.toml", SHORT)


def test_on_several_machines_only_rank_0_reads_the_shards(run: Path) -> None:
    """Otherwise each machine would read thousands of files."""
    shutil.rmtree(run / "tokens/web")
    with pytest.raises(MissingShardError):
        check_run(run / "config.toml", SHORT)

    check_run(run / "config.toml", SHORT, reads_data=False)


@pytest.mark.parametrize("folder", ["/proc/out", "config.toml", "config.toml/out"])
def test_an_output_folder_that_cannot_be_written_is_an_error(
    run: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    with pytest.raises(
        ConfigError,
        match=rf"job\.dump_folder is '{folder}', .* cannot be written \(.*\)\. Choose another",
    ):
        check_run(run / "config.toml", [*SHORT, f"--job.dump_folder={folder}"])


@pytest.fixture
def trained_run(run: Path) -> Path:
    """The run after 4 steps."""
    config = read_run(run / "config.toml", ranks=1)
    trained(run / "outputs/checkpoint", [config.blend], steps=4)
    return run


@pytest.mark.parametrize("steps", [3, 4])
def test_of_a_finished_run_the_command_says_so(
    trained_run: Path, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    words = ["train", str(trained_run), "--nproc", "2", f"--training.steps={steps}"]

    assert cli.main(words) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Nothing to train: ")
    assert line.endswith(
        f"checkpoint has step 4, and training.steps is {steps}. To train longer: --training.steps 8"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.seq_len=64"], "seq_length: checkpoint 256, now 64"),
        (["--blendcorpus.seed=9"], "seed: checkpoint 1234, now 9"),
        (["--training.steps=999"], "more often than max_epochs = 4 allows"),
    ],
)
def test_a_change_that_a_checkpoint_does_not_allow_is_an_error_at_once(
    trained_run: Path, arguments: list[str], message: str
) -> None:
    config = trained_run / "config.toml"
    check_run(config, ["--training.steps=6"])

    with pytest.raises(BlendTitanError, match=message):
        check_run(config, ["--training.steps=6", *arguments])


def skipping_run(run: Path, skip: str, *stretch: int) -> Path:
    """The run after 4 steps of 4 samples, with a skip that its first steps had."""
    config = run / "config.toml"
    train = build_datasets(read_run(config, ranks=1).blend).train
    loader = DataLoader(train, 4, num_workers=0)
    loader.set_skips([stretch])
    loader.consumed_samples = 16 + stretch[1] - stretch[0]
    first = BatchStage(global_batch_size=4)
    schedule = with_jumps((first,), Skips.of([stretch[:2]]))
    save(run / "outputs/checkpoint", 4, loader.state_dict(more=saved_schedule(schedule)))
    config.write_text(config.read_text() + f"[[blendcorpus.skip]]\n{skip}\n")
    return config


def test_the_rest_of_a_run_is_counted_in_the_steps_that_it_still_makes(run: Path) -> None:
    """4 epochs are 512 samples: 16 so far, and 8 in each later step, whatever was skipped."""
    config = skipping_run(run, "from_slot = 4\nto_slot = 1003", 4, 1004)
    check_run(config, ["--training.steps=66"])

    with pytest.raises(ConfigError, match=r"in the 520 samples"):
        check_run(config, ["--training.steps=67"])
    larger = config.read_text() + "[[training.batch_schedule]]\nfrom_step = 24\n"
    config.write_text(larger + "global_batch_size = 16\n")
    check_run(config, ["--training.steps=45"])
    with pytest.raises(ConfigError, match=r"in the 528 samples"):
        check_run(config, ["--training.steps=46"])


def test_a_skip_that_the_checkpoint_has_keeps_its_slots(run: Path) -> None:
    """Its steps had 4 samples; those of the configuration have 8."""
    config = skipping_run(run, "from_step = 2\nto_step = 3", 4, 12, 2, 3)

    check_run(config, ["--training.steps=6"])


def test_a_byte_order_mark_is_not_part_of_the_configuration(run: Path) -> None:
    """Editors on Windows write it."""
    config = run / "config.toml"
    config.write_text("\ufeff" + config.read_text())

    check_run(config, SHORT)


def test_the_check_leaves_no_trace(run: Path) -> None:
    before = sorted(run.rglob("*"))
    check_run(run / "config.toml", [*SHORT, f"--job.dump_folder={run}/new/folder"])

    assert sorted(run.rglob("*")) == before


def test_warnings_of_old_keys_are_left_to_rank_0(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run / "config.toml"
    old = "[float8]\nprecompute_float8_dynamic_scale_for_fsdp = true\n"
    config.write_text(config.read_text() + old)
    read_keys(config)
    assert "these keys have no effect" in caplog.text
    caplog.clear()
    check_run(config, SHORT)

    assert "these keys have no effect" not in caplog.text


def test_a_long_error_is_five_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run.parent / "other.model"
    text.write_bytes(train_tokenizer(TEXTS[:9], vocab_size=301))
    words = ["train", str(run), "--nproc", "2", *SHORT, f"--model.tokenizer_path={text}"]

    assert cli.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= MAX_LINES
    assert "shards do not belong to the tokenizer of this run" in lines[0]


LIGHTHOUSE = "http://node0:29510"


@pytest.fixture
def replica(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that start the second of three replicas, beside a lighthouse."""
    monkeypatch.setenv("TORCHFT_LIGHTHOUSE", LIGHTHOUSE)
    monkeypatch.setattr("blendtitan.settings.replicas.find_spec", lambda name: name)
    words = ["--fault_tolerance.enable", "--fault_tolerance.group_size=3"]
    return [*SHORT, *words, "--fault_tolerance.replica_id=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault_tolerance.replica_id=3"], r"replica_id is 3, expected 0 to 2"),
        (["--fault_tolerance.semi_sync_method=other"], r"semi_sync_method is 'other'"),
        (["--training.global_batch_size=4"], r"global_batch_size is 4, expected at least 6"),
        (["--checkpoint.no_enable"], r"needs checkpoint\.enable = true"),
        (["--model.name=qwen3", "--model.flavor=0.6B"], r"'qwen3' cannot be trained"),
    ],
)
def test_what_replicas_cannot_train_is_an_error_at_once(
    run: Path, replica: list[str], arguments: list[str], message: str
) -> None:
    check_run(run / "config.toml", replica)

    with pytest.raises(ConfigError, match=message):
        check_run(run / "config.toml", [*replica, *arguments])


def test_the_processes_of_a_replica_share_a_model_by_fsdp_alone(
    run: Path, replica: list[str]
) -> None:
    words = [*replica, "--training.global_batch_size=12"]
    check_run(run / "config.toml", words, world_size=2)
    words.append("--parallelism.tensor_parallel_degree=2")

    with pytest.raises(ConfigError, match=r"tensor_parallel_degree is 2, expected 1 with"):
        check_run(run / "config.toml", words, world_size=2)


def test_replicas_without_a_lighthouse_are_refused_at_once(
    run: Path, replica: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHFT_LIGHTHOUSE")

    with pytest.raises(ConfigError, match=r"TORCHFT_LIGHTHOUSE is not set, .* Start one: torchft_"):
        check_run(run / "config.toml", replica)


def test_the_default_global_batch_has_a_micro_batch_of_every_replica(
    run: Path, replica: list[str]
) -> None:
    check_run(run / "config.toml", [*replica, "--training.global_batch_size=-1"])


def test_later_batches_need_not_be_a_multiple_of_the_default_one(
    run: Path, replica: list[str]
) -> None:
    """4 micro batches, of which one replica reads two."""
    later = "--training.batch_schedule=[{from_step = 2, global_batch_size = 8}]"

    check_run(run / "config.toml", [*replica, "--training.global_batch_size=-1", later])


def test_a_replica_starts_again_beside_its_siblings_but_not_beside_itself_or_another_job(
    run: Path, replica: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(read_keys(run / "config.toml")["job.dump_folder"])
    for name in ("replica 0", "replica 1"):
        hold_claim(folder, job=f"torchft job {LIGHTHOUSE} {name}")
        if name == "replica 0":
            check_run(run / "config.toml", replica)
            monkeypatch.setenv("TORCHFT_LIGHTHOUSE", "http://node9:29510")
        with pytest.raises(ConfigError, match=f"another job trains in this folder: .*{name}"):
            check_run(run / "config.toml", replica)
        monkeypatch.setenv("TORCHFT_LIGHTHOUSE", LIGHTHOUSE)
    release_claim()
