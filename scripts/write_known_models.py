"""Write src/blendtitan/settings/known_models.py from the models of the installed TorchTitan.

Usage: .venv/bin/python scripts/write_known_models.py
"""

import inspect
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

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
from typing import NamedTuple

TORCHTITAN = {version!r}
"""The version that has these models."""


{flavor}

MODELS: Mapping[str, Mapping[str, Flavor]] = {models!r}
"""``model.name`` to ``model.flavor``. A model has no flavors here if it needs packages that were
not installed."""

WITH_EXPERTS = frozenset({experts!r})
"""Models whose experts are balanced outside the optimizer."""
'''


class Flavor(NamedTuple):
    """One size of a model."""

    max_seq_len: int
    """The longest ``training.seq_len``."""
    linear_cost: int
    """The cost of a token in all matrices, in units of the attention between two tokens, for a
    vocabulary of 128,000."""


def known_models() -> dict[str, dict[str, Flavor]]:
    """Each flavor of each model."""
    return {name: _flavors(name) for name in MODELS}


def _flavors(name: str) -> dict[str, Flavor]:
    try:
        flavors = [*flavors_of(name), *FLAVORS.get(name, {})]
    except ConfigError:
        return {}
    return {flavor: _flavor(name, flavor) for flavor in flavors}


def _flavor(name: str, flavor: str) -> Flavor:
    """Facts of one flavor, from TorchTitan's count of floating-point operations.

    It counts ``a + b * n`` for each token of a document of ``n`` tokens, as if a token attended to
    all others. With causal attention, the document takes ``a * n + b / 2 * n**2``.
    """
    model = build_model_spec(name, flavor, vocab_size=128_000).model
    with torch.device("meta"):
        built = model.build()
    one, two = (model.get_nparams_and_flops(built, length)[1] for length in (1, 2))
    max_seq_len = getattr(model, "max_seq_len")  # noqa: B009
    return Flavor(max_seq_len, round(2 * (2 * one - two) / (two - one)))


def with_experts(models: Iterable[str]) -> list[str]:
    """Those of the models whose experts are balanced outside the optimizer."""
    first = {name: next(iter(flavors_of(name))) for name in models}
    specs = {name: build_model_spec(name, first[name], vocab_size=64) for name in first}
    return [name for name, spec in specs.items() if spec.post_optimizer_build_fn is not None]


if __name__ == "__main__":
    models = known_models()
    text = HEAD.format(
        version=version("torchtitan"),
        flavor=inspect.getsource(Flavor),
        models=models,
        experts=with_experts(name for name, flavors in models.items() if flavors),
    )
    MODULE.write_text(text)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(MODULE)], check=True)
