"""Which adapter reads which file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.tokenizers.base import Tokenizer
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.hub import located
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer

SP_BACKENDS = ("", "sptoken", "sentencepiece", "sp", "spm")
HF_BACKENDS = ("hf", "huggingface")


def build_tokenizer(job_config: Any) -> Tokenizer:
    """The tokenizer that a job's ``model`` section asks for.

    Args:
        job_config: An object or mapping with a ``model`` section, in the form of TorchTitan
            0.2's ``JobConfig``. Read are ``tokenizer_backend`` (``None`` and ``""`` mean
            SentencePiece), and ``tokenizer_path``, or else ``hf_assets_path``. What is absent
            counts as ``None``.

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
    if backend == "tiktoken":
        raise NotImplementedError(
            "model.tokenizer_backend is 'tiktoken', which is not supported. Use 'sptoken' with a "
            "SentencePiece model, or 'hf' with the tokenizer.json of the same tokenizer."
        )
    choices = ", ".join(repr(choice) for choice in SP_BACKENDS + HF_BACKENDS)
    raise ConfigError(f"model.tokenizer_backend is {asked!r}, expected one of {choices}")


def load_tokenizer(path: str | Path, *, eos: str | int | None = None) -> Tokenizer:
    """The tokenizer found at a path, of the kind that its file names tell.

    A ``.json`` file is a Hugging Face tokenizer, any other file a SentencePiece model. In a
    folder ``tokenizer.json`` is preferred to ``tokenizer.model``: some publishers use the
    latter name for files of another format, and name the former's EOS beside it.

    Args:
        path: File or folder, or the name of a repository of the Hugging Face Hub that is in the
            local cache.
        eos: Token or id to use as EOS. None: the one that the files name.

    Raises:
        ConfigError: Nothing usable is there.
    """
    path = located(path)
    if path.is_dir() and not any((path / name).is_file() for name in (HF_FILE, SP_FILE)):
        raise ConfigError(f"{path}: found neither {HF_FILE} nor {SP_FILE} in this folder")
    is_hf = (path / HF_FILE).is_file() or path.suffix == ".json"
    return HFTokenizer(path, eos) if is_hf else SPTokenizer(path, eos)


def _field(section: Any, name: str) -> Any:
    """A field of somebody else's configuration, ``None`` when absent."""
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)


def _path_in(model: Any) -> Path:
    path = _field(model, "tokenizer_path") or _field(model, "hf_assets_path")
    if not path:
        raise ConfigError(
            "neither model.tokenizer_path nor model.hf_assets_path is set. Name the tokenizer's "
            "file, or the folder that holds it."
        )
    return located(path)
