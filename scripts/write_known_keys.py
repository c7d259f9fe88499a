"""Write src/blendtitan/run/known_keys.py from the dataclasses of the TOML sections.

Usage: .venv/bin/python scripts/write_known_keys.py
"""

import subprocess
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from blendtitan.titan.sections import SECTIONS

MODULE = Path(__file__).parents[1] / "src/blendtitan/run/known_keys.py"

HEAD = '''\
"""Every key of a run's TOML file, with its type, for tools that run without PyTorch.

Written by scripts/write_known_keys.py from the dataclasses that the trainer reads. Do not edit.
"""

from collections.abc import Mapping
from typing import Any, Literal

HINTS: Mapping[str, Any] = {
'''


def known_keys() -> str:
    """The text of the module, before ruff formats it."""
    lines = [
        f'    "{name}.{key}": {spelled(hint)},\n'
        for name, section in SECTIONS.items()
        for key, hint in section.keys.items()
    ]
    return "".join([HEAD, *lines, "}\n", '"""``section.key`` to type."""\n'])


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
