"""Write src/blendtitan/settings/known_models.py from the models of the installed TorchTitan.

Usage: .venv/bin/python scripts/write_known_models.py
"""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

import torch  # noqa: E402

from blendtitan.titan.flavors import FLAVORS  # noqa: E402
from blendtitan.titan.model import MODELS, build_model_spec, flavors_of  # noqa: E402

MODULE = Path(__file__).parents[1] / "src/blendtitan/settings/known_models.py"

HEAD = '''\
"""The models of TorchTitan and their flavors, for checks that do not import it.

Written by scripts/write_known_models.py. Do not edit.
"""

from collections.abc import Mapping

TORCHTITAN = {version!r}
"""The version that has these models."""

MODELS: Mapping[str, Mapping[str, int]] = {models!r}
"""``model.name`` to ``model.flavor`` to the longest ``training.seq_len``. A model has no flavors
here if it needs packages that were not installed."""

LINEAR: Mapping[str, Mapping[str, int]] = {linear!r}
"""``model.name`` to ``model.flavor`` to the cost of a token in all matrices, in units of the
attention between two tokens, for a vocabulary of 128,000."""
'''


def known_models() -> dict[str, dict[str, int]]:
    """The longest sequence of each flavor of each model."""
    return {name: _lengths(name) for name in MODELS}


def _lengths(name: str) -> dict[str, int]:
    try:
        flavors = [*flavors_of(name), *FLAVORS.get(name, {})]
    except ConfigError:
        return {}
    specs = {flavor: build_model_spec(name, flavor, vocab_size=64) for flavor in flavors}
    return {flavor: getattr(spec.model, "max_seq_len") for flavor, spec in specs.items()}  # noqa: B009


def linear_costs() -> dict[str, dict[str, int]]:
    """The cost of a token in all matrices of each flavor of each model."""
    found: dict[str, dict[str, int]] = {}
    for name, flavors in known_models().items():
        found[name] = {flavor: linear_cost(name, flavor) for flavor in flavors}
    return found


def linear_cost(name: str, flavor: str) -> int:
    """The same of one flavor, from TorchTitan's count of floating-point operations.

    It counts ``a + b * n`` for each token of a document of ``n`` tokens, as if a token attended to
    all others. With causal attention, the document takes ``a * n + b / 2 * n**2``.
    """
    model = build_model_spec(name, flavor, vocab_size=128_000).model
    with torch.device("meta"):
        built = model.build()
    one, two = (model.get_nparams_and_flops(built, length)[1] for length in (1, 2))
    return round(2 * (2 * one - two) / (two - one))


if __name__ == "__main__":
    models, linear = known_models(), linear_costs()
    MODULE.write_text(HEAD.format(version=version("torchtitan"), models=models, linear=linear))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(MODULE)], check=True)
