"""Write src/blendtitan/settings/known_keys.py from the dataclasses of the TOML sections.

Usage: .venv/bin/python scripts/write_known_keys.py
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from blendtitan.settings.section import BlendSection
from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.titan.settings import Settings  # noqa: E402

MODULE = Path(__file__).parents[1] / "src/blendtitan/settings/known_keys.py"

HEAD = '''\
"""Every key of a run's TOML file, for tools that run without PyTorch.

Written by scripts/write_known_keys.py from the dataclasses that the trainer reads. Do not edit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

KEYS: Mapping[str, tuple[Any, Any]] = {
'''

TAIL = '''\
}
"""``section.key`` to its type and its default. The default of ``parallelism.spmd_backend`` depends
on the machine."""
'''

BY_MACHINE = "parallelism.spmd_backend"

# Fields that are not keys, because other sections and the rest of the run decide them.
_NO_KEYS = {
    "profiling": {"trace_post_processor"},
    "training.dataloader": {"dataset", "dataset_path"},
    "validation.dataloader": {"dataset", "dataset_path"},
    "debug": {"batch_invariant"},
    "blendcorpus": {"vocab_size"},
    "quantize.linear.float8": {"model_compile_enabled"},
    "quantize.linear.mx": {"model_compile_enabled"},
    "quantize.linear.nvfp4": {"model_compile_enabled"},
    "quantize.grouped_mm.float8": {"model_compile_enabled"},
    "quantize.grouped_mm.mx": {"model_compile_enabled"},
}


def known_keys() -> str:
    """The text of the module, before ruff formats it."""
    settings = Settings()
    lines: list[str] = []
    for key, hint in keys_of(Settings, ""):
        default = None if key == BY_MACHINE else attrgetter(key)(settings)
        lines.append(f'    "{key}": ({spelled(hint)}, {default!r}),\n')
    return "".join([HEAD, *lines, TAIL])


def keys_of(kind: type, section: str) -> Iterator[tuple[str, Any]]:
    """``section.key`` and type of every key below a section."""
    # The loader's configuration has more fields, which the run decides.
    shown = BlendSection if section == "blendcorpus" else kind
    hints = get_type_hints(shown)
    names = [f.name for f in fields(shown) if f.name not in _NO_KEYS.get(section, ())]
    paths = {name: f"{section}.{name}" if section else name for name in names}
    for name in names:
        if not is_dataclass(hints[name]):
            yield paths[name], hints[name]
    for name in names:
        if is_dataclass(hints[name]):
            yield from keys_of(hints[name], paths[name])


def spelled(hint: Any) -> str:
    """A type as Python spells it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " | ".join(map(spelled, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(spelled, arguments))}]"
    return {NoneType: "None", Any: "Any"}.get(hint) or hint.__name__


if __name__ == "__main__":
    MODULE.write_text(known_keys())
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(MODULE)], check=True)
