"""Which adapter reads which file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.tokenizers.base import Tokenizer, located
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer
from blendtitan.tokenizers.tekken import TEKKEN_FILE, TekkenTokenizer, is_tekken

SP_BACKENDS = ("", "sptoken", "sentencepiece", "sp", "spm")
HF_BACKENDS = ("hf", "huggingface")
TEKKEN_BACKENDS = ("tekken",)


def build_tokenizer(job_config: Any) -> Tokenizer:
    """The tokenizer that a job's ``model`` section names.

    Args:
        job_config: An object or mapping with a ``model`` section, in the form of TorchTitan
            0.2's ``JobConfig``. It may set ``tokenizer_backend`` (``None`` and ``""`` mean
            SentencePiece), and ``tokenizer_path`` or else ``hf_assets_path``.

    Raises:
        ConfigError: The backend is unknown, or no path is set, or the file cannot be used.
        NotImplementedError: The backend is ``tiktoken``.
    """
    model = _field(job_config, "model")
    asked = _field(model, "tokenizer_backend")
    backend = str(asked or "").strip().lower()
    if backend in SP_BACKENDS:
        return SPTokenizer(_path_in(model))
    if backend in HF_BACKENDS:
        return HFTokenizer(_path_in(model))
    if backend in TEKKEN_BACKENDS:
        return TekkenTokenizer(_path_in(model))
    if backend == "tiktoken":
        raise NotImplementedError(
            "model.tokenizer_backend is 'tiktoken', which is not supported. Use 'sptoken' with a "
            "SentencePiece model, or 'hf' with the tokenizer.json of the same tokenizer."
        )
    choices = ", ".join(repr(choice) for choice in SP_BACKENDS + HF_BACKENDS + TEKKEN_BACKENDS)
    raise ConfigError(f"model.tokenizer_backend is {asked!r}, expected one of {choices}")


def load_tokenizer(path: str | Path, *, eos: str | int | None = None) -> Tokenizer:
    """Load the tokenizer at a path. The file name decides its kind.

    A ``.json`` file with ``tekken`` in its name is a Tekken tokenizer, any other ``.json`` file
    a Hugging Face tokenizer, and any other file a SentencePiece model. In a folder,
    ``tokenizer.json`` is preferred to ``tekken.json``, and that to ``tokenizer.model``: some
    publishers use the last name for files of another format, and name the EOS beside the first.

    Args:
        path: A file, a folder, or the name of a Hugging Face Hub repository in the local cache.
        eos: Token or id to use as EOS. None: the one that the files name.

    Raises:
        ConfigError: There is no usable tokenizer.
    """
    path = located(path)
    if path.is_dir():
        names = (HF_FILE, TEKKEN_FILE, SP_FILE)
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"{path}: found none of {', '.join(names)} in this folder")
        path = found
    if is_tekken(path):
        return TekkenTokenizer(path, eos)
    return HFTokenizer(path, eos) if path.suffix == ".json" else SPTokenizer(path, eos)


def _field(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)


def _path_in(model: Any) -> Path:
    path = _field(model, "tokenizer_path") or _field(model, "hf_assets_path")
    if not path:
        raise ConfigError(
            "neither model.tokenizer_path nor model.hf_assets_path is set. Name the tokenizer's "
            "file, or the folder that contains it."
        )
    return located(path)
