"""Which keys a TOML file may hold, made from the dataclasses of ``Settings``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from blendtitan.titan.settings import Settings

# Fields that are no keys, because other sections and the rest of the run decide them.
_NO_KEYS = {
    "profiling": {"trace_post_processor"},
    "training.dataloader": {"dataset", "dataset_path"},
    "validation.dataloader": {"dataset", "dataset_path"},
    "debug": {"batch_invariant"},
    "blendcorpus": {
        "dataset",
        "dataset_path",
        "vocab_size",
        "split_name",
        "infinite",
        "num_samples",
        "corpus",
        "corpus_ids",
        "positions",
        "global_batch_size",
        "run_samples",
        "validation_samples",
    },
    "quantize.linear.float8": {"model_compile_enabled"},
    "quantize.linear.mx": {"model_compile_enabled"},
    "quantize.linear.nvfp4": {"model_compile_enabled"},
    "quantize.grouped_mm.float8": {"model_compile_enabled"},
    "quantize.grouped_mm.mx": {"model_compile_enabled"},
}


@dataclass(frozen=True, slots=True)
class Section:
    """What a section may hold."""

    settings: type
    """The dataclass that holds its values."""

    keys: Mapping[str, Any]
    """Type of each key."""

    subsections: Mapping[str, str]
    """Section of each field that is a section itself."""


def _sections(name: str, settings: type) -> Iterator[tuple[str, Section]]:
    hints = get_type_hints(settings)
    names = [f.name for f in fields(settings) if f.name not in _NO_KEYS.get(name, ())]
    inner = {key: f"{name}.{key}" for key in names if is_dataclass(hints[key])}
    yield name, Section(settings, {k: hints[k] for k in names if k not in inner}, inner)
    for key, path in inner.items():
        yield from _sections(path, hints[key])


SECTIONS: Mapping[str, Section] = {
    path: section
    for name, settings in get_type_hints(Settings).items()
    for path, section in _sections(name, settings)
}
"""Every section by its name in a file, such as ``training`` or ``training.dataloader``."""
