"""The complete configuration that a run writes."""

import tomllib
from pathlib import Path

from blendtitan.titan.resolved import resolved_toml, write_resolved
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.toml import read_settings

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

    for name, section in SECTIONS.items():
        table = document
        for part in name.split("."):
            table = table.get(part, {})
        assert set(section.keys) <= set(table)


def test_it_replaces_the_one_of_an_earlier_start_as_a_whole(tmp_path: Path) -> None:
    for steps in ("9", "8"):
        folder = ["--job.dump_folder", str(tmp_path)]
        path = write_resolved(read_settings([*folder, "--training.steps", steps]))

    assert read_settings(["--job.config_file", str(path)]).training.steps == 8
    assert list(tmp_path.iterdir()) == [path]
