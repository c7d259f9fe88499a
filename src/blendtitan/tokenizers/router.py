"""The adapter for each kind of tokenizer file, and the identity of a tokenizer."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from blendtitan.errors import ConfigError
from blendtitan.identity import TokenizerIdentity
from blendtitan.tokenizers.base import Tokenizer, located, read_bytes
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer
from blendtitan.tokenizers.tekken import TEKKEN_FILE, TekkenTokenizer, tekken_definition

SP_BACKENDS = ("sptoken", "sentencepiece", "sp", "spm")
HF_BACKENDS = ("hf", "huggingface")
TEKKEN_BACKENDS = ("tekken",)

FILES = (HF_FILE, TEKKEN_FILE, SP_FILE)
"""Files that hold a tokenizer, the preferred one first."""


def build_tokenizer(job_config: Any) -> Tokenizer:
    """The tokenizer that a job's ``model`` section names.

    Args:
        job_config: Object or mapping with a ``model`` section, like TorchTitan 0.2's ``JobConfig``.
            It sets ``tokenizer_path`` or else ``hf_assets_path``, and may set
            ``tokenizer_backend``. Without a backend, ``load_tokenizer`` recognises the file.

    Raises:
        ConfigError: The backend is unknown, or no path is set, or the file cannot be used.
        NotImplementedError: The backend is ``tiktoken``.
    """
    model = _field(job_config, "model")
    asked = _field(model, "tokenizer_backend")
    backend = str(asked or "").strip().lower()
    if not backend:
        return load_tokenizer(_path_in(model))
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
        path: A file or a folder, also as a URL, or the name of a Hugging Face Hub repository in the
            local cache.
        eos: Token or id to use as EOS. None: the EOS of the files.

    Raises:
        ConfigError: There is no usable tokenizer.
    """
    path = located(path)
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"{path}: this folder has none of {', '.join(FILES)}. Name a file.")
        path = found
    if path.suffix == ".json" and "tekken" in path.name:  # as mistral-common decides
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


_SCHEME = "1"
"""Version of the hashing scheme. Hashes of different schemes are not compared."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def tokenizer_identity(tokenizer: Tokenizer) -> str:
    """A hash of the file's content and of the special tokens that were read from it."""
    special = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)
    described = f"{type(tokenizer).__name__} {tokenizer.vocab_size} {special}".encode()
    return hashlib.sha256(described + b"\n" + read_bytes(tokenizer.path)).hexdigest()


def identity_of(tokenizer: Tokenizer, eod_id: int | None) -> TokenizerIdentity:
    """The identity of a tokenizer whose documents end in ``eod_id``, or without EOD."""
    digest = hashlib.sha256(_definition(tokenizer)).hexdigest()
    kind = type(tokenizer).__name__.removesuffix("Tokenizer").lower()
    if isinstance(tokenizer, SPTokenizer):
        kind = "sentencepiece"
    elif isinstance(tokenizer, HFTokenizer):
        kind = "huggingface"
    return TokenizerIdentity(
        hash=f"{_SCHEME}:{digest}",
        name=f"{tokenizer.path.absolute().parent.name}/{tokenizer.path.name}",
        kind=kind,
        vocab_size=tokenizer.vocab_size,
        eod_id=eod_id,
    )


def _definition(tokenizer: Tokenizer) -> bytes:
    """Bytes that are equal for two tokenizers if they give every text the same ids."""
    if isinstance(tokenizer, TekkenTokenizer):
        definition = tekken_definition(tokenizer.path)
        # Texts never become symbols, so the names of symbols do not matter.
        decisive = {name: value for name, value in definition.items() if name != "symbols"}
        return orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)
    content = read_bytes(tokenizer.path)
    if not isinstance(tokenizer, HFTokenizer):
        return content
    parsed = orjson.loads(content)
    # Other fields change no ids: encoding uses no special tokens, truncation or padding.
    added = map(_added_token, parsed.get("added_tokens") or ())
    decisive = {
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": _component(parsed.get("normalizer")),
        "pre_tokenizer": _component(parsed.get("pre_tokenizer")),
        "model": _model(parsed["model"]),
        "spelled_out": sorted(tokenizer.spelled_out.items()),
    }
    return orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)


def _added_token(token: Mapping[str, Any]) -> dict[str, Any]:
    flags = {flag: bool(token.get(flag)) for flag in _FLAGS}
    return {"id": token["id"], "content": token["content"]} | flags


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model without the fields that library releases write differently."""
    known = {key: value for key, value in model.items() if value not in (None, False)}
    if "merges" in known:
        merges = [m.split(" ", 1) if isinstance(m, str) else m for m in known["merges"]]
        affixes = ("continuing_subword_prefix", "end_of_word_suffix")
        known = {key: value for key, value in known.items() if key not in affixes or value}
        known |= {"type": "BPE", "merges": merges}
    return known


def _component(component: Any) -> Any:
    """A normalizer or pre-tokenizer without fields that library releases write differently."""
    if isinstance(component, list):
        return [_component(part) for part in component]
    if not isinstance(component, Mapping):
        return component
    known = {key: _component(value) for key, value in component.items() if value is not None}
    if known.get("type") == "ByteLevel":
        known.pop("trim_offsets", None)  # about offsets, not ids
        return {"use_regex": True} | known
    if known.get("type") == "Metaspace":
        known.pop("str_rep", None)
        prepends = known.pop("add_prefix_space", True)
        return {"prepend_scheme": "always" if prepends else "never", "split": True} | known
    return known
