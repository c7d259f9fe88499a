"""The interface of every tokenizer, and access to their files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, VocabularyError
from blendtitan.files import read_file

ABSENT = -1
"""Id of a special token that the tokenizer does not have, as SentencePiece spells it."""

EncodedTexts = tuple[NDArray[np.int32], NDArray[np.int32]]
"""The concatenated ids of all texts, and the number of ids of each text."""

_NO_IDS = np.empty(0, np.int32)


class Tokenizer(ABC):
    """Converts text to ids and back. Pickled as its path, so cheap to send to another process."""

    path: Path
    """The file that it was read from."""

    asked_eos: str | int | None
    """Token or id that was requested as EOS. None: the EOS of the files."""

    vocab_size: int
    """Largest id plus 1."""

    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int

    @property
    def unknown_id(self) -> int:
        """The id of the unknown token, or ``ABSENT``."""
        return self.unk_id

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
            ConfigError: BOS or EOS is requested, but the tokenizer has none.
        """
        ids = self.encode_batch([text])[0].tolist()
        before = [self._present(self.bos_id, "BOS")] if bos or add_bos else []
        after = [self._present(self.eos_id, "EOS")] if eos or add_eos else []
        return before + ids + after

    @abstractmethod
    def encode_batch(self, texts: list[str]) -> EncodedTexts:
        """Ids of many texts, without BOS, EOS or other control symbols.

        Returns:
            The concatenated ids of all texts, and the number of ids of each text. int32, shapes
            ``(sum(lens),)`` and ``(len(texts),)``.
        """

    @abstractmethod
    def symbols(self) -> list[str]:
        """Spellings that the tokenizer treats as symbols, not as plain characters."""

    @property
    def eos_advice(self) -> str:
        """The remedy, for an error, if the files name no EOS."""
        return (
            "For a tokenizer.json, name it as eos_token in a tokenizer_config.json beside it; "
            "`blendtitan tokenize --eos-token` or --eod-id names one for any tokenizer."
        )

    def control_ids(self) -> frozenset[int]:
        """Ids that no text produces, or that do not identify their text."""
        return frozenset({self.bos_id, self.eos_id, self.pad_id, self.unk_id} - {ABSENT})

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """Text of the given ids. BOS, EOS and other control symbols decode to nothing.

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

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str | int | None]]:
        return type(self), (self.path, self.asked_eos)

    @abstractmethod
    def _decode_ids(self, ids: list[int]) -> str:
        """Text of ids that are in range."""

    def _present(self, token: int, name: str) -> int:
        if token == ABSENT:
            raise ConfigError(f"{self.path}: {name} is requested, but the tokenizer has none")
        return token


def concatenated(encoded: Sequence[NDArray[np.integer]]) -> EncodedTexts:
    """Arrays of ids, one per text, in the form that ``encode_batch`` returns."""
    lens = np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded))
    # NumPy cannot concatenate an empty list, hence the empty array in front.
    return np.concatenate([_NO_IDS, *encoded], dtype=np.int32, casting="unsafe"), lens


def file_in(path: Path, name: str) -> Path:
    """``path``, or the file ``name`` in it if it is a folder."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file}: no such file. Name a tokenizer.json or .model, or its folder.")
    return file


def read_bytes(path: Path) -> bytes:
    """The content of a tokenizer's file."""
    try:
        return read_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def located(path: str | Path) -> Path:
    """The path itself if it exists, or a local one for it; errors as ``elsewhere.fetched``."""
    if os.path.lexists(path):
        return Path(path)
    from blendtitan.tokenizers.elsewhere import fetched

    return fetched(path)
