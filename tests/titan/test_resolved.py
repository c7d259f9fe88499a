"""The complete configuration that a run writes."""

import tomllib
from pathlib import Path

from blendtitan.mixture.sweep import read_losses, read_shares
from blendtitan.settings.known_keys import KEYS
from blendtitan.titan.toml import read_settings, resolved_toml, write_resolved
from tests.conftest import WriteBlend
from tests.mixture.conftest import sweep

# Each kind of value, some against a default that is none, and some none against another default.
ARGUMENTS = [
    *["--optimizer.lr", "1e-30", "--optimizer.weight_decay", "0", "--debug.seed", "7"],
    *["--checkpoint.exclude_from_loading", "dataloader,optimizer", "--validation.enable"],
    *["--parallelism.context_parallel_load_balancer", "none"],
    *["--parallelism.module_fqns_per_model_part", '[["tok_embeddings", "layers.0"], ["lm_head"]]'],
    *["--quantize.linear.float8.filter_fqns", "lm_head", "--model.converters", "float8"],
    *["--training.dataloader.prefetch_factor", "3", "--training.dataloader.num_workers", "2"],
]


def test_reading_it_gives_the_same_settings(tmp_path: Path) -> None:
    awkward = (
        'quote " backslash \\ line\nbreak tab\t delete \x7f umlaut \u00e4 emoji \U0001f600 none'
    )
    settings = read_settings(
        [*ARGUMENTS, "--job.dump_folder", str(tmp_path / "out"), "--job.description", awkward]
    )
    path = write_resolved(settings)

    assert path == tmp_path / "out/config.toml"
    assert read_settings(["--job.config_file", str(path)]) == settings
    assert settings.job.description == awkward


def test_it_has_every_key(tmp_path: Path) -> None:
    """Defaults may differ in another release; the run's do not."""
    document = tomllib.loads(resolved_toml(read_settings([])))

    for name in KEYS:
        *sections, key = name.split(".")
        table = document
        for section in sections:
            table = table[section]
        assert key in table


def test_it_replaces_the_one_of_an_earlier_start_as_a_whole(tmp_path: Path) -> None:
    for steps in ("9", "8"):
        folder = ["--job.dump_folder", str(tmp_path)]
        path = write_resolved(read_settings([*folder, "--training.steps", steps]))

    assert read_settings(["--job.config_file", str(path)]).training.steps == 8
    assert list(tmp_path.iterdir()) == [path]


def test_a_configuration_that_no_run_wrote_is_kept_under_another_name(tmp_path: Path) -> None:
    """It may be the one that the run was configured by, with its comments."""
    (tmp_path / "config.toml").write_text("# mine\n[training]\nsteps = 9\n")
    for _ in range(2):
        write_resolved(read_settings(["--job.dump_folder", str(tmp_path)]))

    assert (tmp_path / "config.before-run-1.toml").read_text() == (
        "# mine\n[training]\nsteps = 9\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.before-run-1.toml",
        "config.toml",
    ]


def test_a_sweep_finds_the_blend_of_each_run_in_it(tmp_path: Path, write_blend: WriteBlend) -> None:
    """Shares are compared exactly, as the run that reads them wrote them down."""
    blend = write_blend({name: (1.0, [400]) for name in ("code", "web", "books")}, seq_length=8)
    config = tmp_path / "run.toml"
    config.write_text(
        "[training]\nseq_len = 8\nsteps = 3\nlocal_batch_size = 4\nglobal_batch_size = 4\n"
        f'[blendcorpus]\ndata_file_list = "{blend.data_file_list}"\neod_token_id = 2\n'
        "[metrics]\nenable_tensorboard = true\n"
    )
    folder = tmp_path / "sweep"
    assert sweep(config, folder, "--method", "dirichlet", "--runs", "3") == 0
    for run in read_shares(folder):
        write_resolved(read_settings(["--job.config_file", str(folder / f"{run}.toml")]))

    assert [(run.logged, run.steps) for run in read_losses(folder, last=1)] == [(0, 3)] * 3
