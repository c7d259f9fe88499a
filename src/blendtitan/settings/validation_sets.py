"""``[[validation.set]]``: held-out data beside the splits of the blend, each with its own loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_type_hints

from blendtitan.config import BlendKeys, check_at_least, check_is_path
from blendtitan.errors import ConfigError
from blendtitan.settings.tables import check_keys
from blendtitan.settings.toml import described, fits

Keys = TypeVar("Keys", bound=BlendKeys)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSet:
    """One table: shards of which every document is held out."""

    name: str
    """Its name in metrics and in the log."""

    path: str
    """File list, or folder of shards."""

    samples: int | None = None
    """Samples that a validation reads, always the same. None: every window once."""

    allow_overlap: bool = False
    """Accept documents that training reads as well."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, number: int) -> "ValidationSet":
        """The ``number``-th table of a configuration, checked."""
        where, hints = f"validation.set {number}", get_type_hints(cls)
        check_keys(table, cls, where=where)
        for key, value in table.items():
            if not fits(value, hints[key]):
                raise ConfigError(f"{where}: {key} is {value!r}, expected {described(hints[key])}")
        for key in ("name", "path"):
            if not table.get(key):
                raise ConfigError(f"{where}: {key} is missing, expected name and path")
        if (samples := table.get("samples")) is not None:
            check_at_least(f"{where}: samples", samples, 1)
        check_is_path(f"{where}: path", table["path"], may_be_remote=True)
        return cls(**table)

    def reading(self, keys: Keys) -> Keys:
        """The settings of a run, changed to read every document of the set as its valid split."""
        return replace(
            keys,  # pyright: ignore[reportArgumentType]  # all classes of keys are dataclasses
            data_file_list=self.path,
            split="0,1,0",
            order="blendtitan",
            **{each: None for each in ("train_samples", "eval_samples", "removed_documents")},
        )


def validation_sets(tables: Sequence[Mapping[str, Any]]) -> tuple[ValidationSet, ...]:
    """The validation sets of a configuration.

    Raises:
        ConfigError: A key or a value cannot be used, or two sets have one name.
    """
    sets = [ValidationSet.from_table(table, number=i) for i, table in enumerate(tables, start=1)]
    for number, each in enumerate(sets, start=1):
        if each.name in [other.name for other in sets[: number - 1]]:
            raise ConfigError(f"validation.set {number}: name is {each.name!r}, as that of another")
    return tuple(sets)
