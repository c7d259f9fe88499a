"""One router, two adapters: SentencePiece models and Hugging Face ``tokenizer.json`` files.

Both adapters keep one promise: the ids that delimit documents (BOS, EOS, padding and other
control symbols) are never produced from text. A text that spells out ``</s>`` stays text, so
it cannot end a document.

Imports neither torch nor torchtitan, so that worker processes start fast.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import sentencepiece
import tokenizers
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, VocabularyError

logger = logging.getLogger(__name__)

ABSENT = -1
"""Id of a special token that the tokenizer does not have, as SentencePiece spells it."""

SP_BACKENDS = ("", "sptoken", "sentencepiece", "sp", "spm")
HF_BACKENDS = ("hf", "huggingface")

SP_FILE = "tokenizer.model"
HF_FILE = "tokenizer.json"


class Tokenizer(ABC):
    """Text to ids and back. Pickled as its path, so it is cheap to send to another process."""

    path: Path
    """The file it was read from."""

    vocab_size: int
    """Smallest number that is larger than every id."""

    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int

    @property
    def n_words(self) -> int:
        """The vocabulary size, under the name that SentencePiece wrappers use."""
        return self.vocab_size

    def get_vocab_size(self) -> int:
        """The vocabulary size, under TorchTitan's name."""
        return self.vocab_size

    def encode(
        self,
        text: str,
        bos: bool = False,
        eos: bool = False,
        *,
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> list[int]:
        """Ids of one text. ``add_bos`` and ``add_eos`` are TorchTitan's names for ``bos``, ``eos``.

        Raises:
            ConfigError: BOS or EOS is asked for and the tokenizer has none.
        """
        ids = self._encode_texts([text])[0]
        before = [self._present(self.bos_id, "BOS")] if bos or add_bos else []
        after = [self._present(self.eos_id, "EOS")] if eos or add_eos else []
        return before + ids + after

    def encode_batch(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of many texts, without BOS and EOS.

        Returns:
            The ids of all texts, one after the other, and the number of ids of each text.
            Shapes ``(sum(lens),)`` and ``(len(texts),)``.
        """
        encoded = self._encode_texts(texts)
        lens = np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded))
        ids = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lens.sum()))
        return ids, lens

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """Text of some ids. BOS, EOS and other control symbols have none.

        Raises:
            VocabularyError: An id is below 0, or not below ``vocab_size``.
        """
        checked = [int(token) for token in ids]
        outside = next((token for token in checked if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise VocabularyError(
                f"{self.path}: cannot decode id {outside}, expected 0 to {self.vocab_size - 1}. "
                f"The ids come from another tokenizer, or are -100 where a loss is masked."
            )
        return self._decode_ids(checked)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    @abstractmethod
    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts, none of them a control symbol."""

    @abstractmethod
    def _decode_ids(self, ids: list[int]) -> str:
        """Text of ids that are known to be in range."""

    def _present(self, token: int, name: str) -> int:
        if token == ABSENT:
            raise ConfigError(f"{self.path}: {name} is asked for, but the tokenizer has none")
        return token


class SPTokenizer(Tokenizer):
    """A SentencePiece model: a ``.model`` file, or a folder that holds ``tokenizer.model``.

    SentencePiece itself reads no control symbol from text. Symbols that a model defines as the
    user's are read, which is their purpose; it does not accept one of those as BOS or EOS.
    """

    def __init__(self, model_path: str | Path) -> None:
        self.path = _file_in(Path(model_path), SP_FILE)
        self._model = _read_sentencepiece(self.path)
        self.vocab_size = self._model.vocab_size()
        self.bos_id = self._model.bos_id()
        self.eos_id = self._model.eos_id()
        self.pad_id = self._model.pad_id()
        self.unk_id = self._model.unk_id()
        logger.info("%s: SentencePiece, %d ids, EOS %d", self.path, self.vocab_size, self.eos_id)

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        return self._model.encode(texts, out_type=int, num_threads=1)

    def _decode_ids(self, ids: list[int]) -> str:
        return self._model.decode(ids)


class HFTokenizer(Tokenizer):
    """A Hugging Face tokenizer: ``tokenizer.json``, or a folder that holds one.

    BOS, EOS, padding and unknown are named in ``tokenizer_config.json`` or
    ``special_tokens_map.json`` beside it; where both name one, the first counts.

    Some files make the library read control symbols from text: Unigram models that hold them as
    pieces, and added tokens that are not marked as special. They are then spelled out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _file_in(Path(path), HF_FILE)
        self._tokenizer = _read_tokenizer_json(self.path)
        # Ids may have gaps, so the number of tokens does not bound them.
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        named = _named_special_tokens(self.path.parent)
        self.bos_id = self._id_of(named, "bos_token")
        self.eos_id = self._id_of(named, "eos_token")
        self.pad_id = self._id_of(named, "pad_token")
        self.unk_id = self._id_of(named, "unk_token")
        control = {
            token: added.content
            for token, added in self._tokenizer.get_added_tokens_decoder().items()
            if added.special and token != self.unk_id
        }
        for role in ("bos_token", "eos_token", "pad_token"):
            if role in named:
                control[self._id_of(named, role)] = named[role]
        self._spellings = self._symbol_spellings(control)
        logger.info("%s: Hugging Face, %d ids, EOS %d", self.path, self.vocab_size, self.eos_id)

    def _id_of(self, named: Mapping[str, str], role: str) -> int:
        token = named.get(role)
        if token is None:
            return ABSENT
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ConfigError(
                f"{self.path}: has no token {token!r}, which the configuration beside it names "
                f"as {role}. Correct {role} there, or add the token to {HF_FILE}."
            )
        return token_id

    def _symbol_spellings(self, symbols: Mapping[int, str]) -> dict[int, list[int]]:
        """For each symbol that the library reads from text: the ids of its characters."""
        spellings: dict[int, list[int]] = {}
        for symbol_id, symbol in symbols.items():
            if symbol_id not in self._library_ids([symbol])[0]:
                continue
            spelling = list(chain.from_iterable(self._library_ids(list(symbol))))
            if not symbols.keys().isdisjoint(spelling):
                raise ConfigError(
                    f"{self.path}: the control symbol {symbol!r} (id {symbol_id}) is ordinary "
                    f"text, so documents that hold it could not be told apart. Use a tokenizer "
                    f"whose BOS, EOS and padding are symbols of their own."
                )
            spellings[symbol_id] = spelling
        return spellings

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        encoded = self._library_ids(texts)
        if not self._spellings:
            return encoded
        return [
            list(chain.from_iterable(self._spellings.get(token, (token,)) for token in ids))
            for ids in encoded
        ]

    def _library_ids(self, texts: list[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _decode_ids(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


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


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer found at a path, of the kind that its file names tell.

    A ``.json`` file is a Hugging Face tokenizer, any other file a SentencePiece model. In a
    folder ``tokenizer.json`` is preferred to ``tokenizer.model``: some publishers use the
    latter name for files of another format, and name the former's EOS beside it.

    Raises:
        ConfigError: Nothing usable is there.
    """
    path = Path(path)
    if path.is_dir() and not any((path / name).is_file() for name in (HF_FILE, SP_FILE)):
        raise ConfigError(f"{path}: found neither {HF_FILE} nor {SP_FILE} in this folder")
    is_hf = (path / HF_FILE).is_file() or path.suffix == ".json"
    return HFTokenizer(path) if is_hf else SPTokenizer(path)


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
    return Path(path)


def _file_in(path: Path, name: str) -> Path:
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file}: no such file. Name a tokenizer file, or a folder with {name}.")
    return file


def _read_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    content = _read_bytes(path)
    try:
        # An empty model is accepted by the library, which then fails at its first use.
        return sentencepiece.SentencePieceProcessor(model_proto=content or b"empty")
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: {len(content):,} bytes that are not a SentencePiece model. The copy is "
            f"incomplete, or it is a tokenizer of another kind: where tokenizer.model is for "
            f"tiktoken, the backend 'hf' reads the tokenizer.json of the same tokenizer."
        ) from error


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    content = _read_bytes(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not a Hugging Face tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _named_special_tokens(folder: Path) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        config = _read_json(file) if file.is_file() else {}
        for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
            # A token is a string, or an AddedToken written as a dictionary.
            token = config.get(role)
            token = token.get("content") if isinstance(token, Mapping) else token
            if token:
                named[role] = token
    return named


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def _read_json(path: Path) -> dict[str, Any]:
    content = _read_bytes(path)
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: found a {type(config).__name__}, expected a JSON object")
    return config
