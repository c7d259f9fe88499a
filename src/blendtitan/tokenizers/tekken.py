"""Tekken files, the tokenizers of Mistral's models since Mistral Nemo."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.tokenizers.base import (
    ABSENT,
    EncodedTexts,
    Tokenizer,
    concatenated,
    file_in,
    read_bytes,
)
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

TEKKEN_FILE = "tekken.json"

# The symbols of files that list none: those before version 11.
_UNLISTED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)


class TekkenTokenizer(Tokenizer):
    """A Tekken tokenizer: a ``tekken.json``, or a folder that holds one.

    The ids of texts are those of tiktoken, which mistral-common uses as well, behind the ids of
    the control symbols. Control symbols are never read from text.
    """

    def __init__(self, path: str | Path, eos: str | int | None = None) -> None:
        self.path = file_in(Path(path), TEKKEN_FILE)
        definition = tekken_definition(self.path)
        self._symbols: dict[str, int] = definition["symbols"]
        self._num_symbols: int = definition["num_symbols"]
        self._model = _build_model(self.path, definition)
        self.vocab_size = self._num_symbols + len(definition["pieces"])
        self.asked_eos = eos
        self.bos_id = self._symbols.get("<s>", ABSENT)
        self.eos_id = self._symbols.get("</s>", ABSENT) if eos is None else self._control_id(eos)
        self.pad_id = self._symbols.get("<pad>", ABSENT)
        # Every byte is a piece, so nothing is unknown.
        self.unk_id = self._symbols.get("<unk>", ABSENT)
        logger.info("%s: Tekken, %d ids, EOS %d", self.path, self.vocab_size, self.eos_id)

    def _control_id(self, eos: str | int) -> int:
        found = eos if isinstance(eos, int) else self._symbols.get(eos, ABSENT)
        if not 0 <= found < self._num_symbols:
            raise ConfigError(
                f"{self.path}: {eos!r} is requested as EOS, expected a control symbol, which no "
                f"text contains, such as {', '.join(self.symbols()[:8])}, or an id below "
                f"{self._num_symbols}"
            )
        return found

    def encode_batch(self, texts: list[str]) -> EncodedTexts:
        """See ``Tokenizer.encode_batch``."""
        return concatenated([self._ids(text) for text in texts])

    def _ids(self, text: str) -> NDArray[np.integer]:
        try:
            return self._model.encode_to_numpy(text, disallowed_special=()) + self._num_symbols
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # A panic of a Rust library is a BaseException of no importable type.
        except BaseException as error:
            raise ConfigError(
                f"{self.path}: tiktoken cannot encode the text of {len(text):,} characters that "
                f"begins with {text[:40]!r}, as it fails at runs of a million spaces or letters. "
                f"Remove the text, or reject texts of such a length with --max-document-bytes."
            ) from error

    def control_ids(self) -> frozenset[int]:
        """Ids below those of texts."""
        return frozenset(range(self._num_symbols))

    def symbols(self) -> list[str]:
        """Spellings of the control symbols that have a name."""
        return [*self._symbols]

    def _decode_ids(self, ids: list[int]) -> str:
        first = self._num_symbols
        return self._model.decode([token - first for token in ids if token >= first])


def tekken_definition(path: Path) -> dict[str, Any]:
    """Everything that determines the ids of a Tekken file.

    ``pattern`` cuts text into words; ``pieces`` are in the order of their ids, in base 64;
    ``num_symbols`` ids precede them; ``symbols`` are the names of some of those.

    Raises:
        ConfigError: It is not a Tekken file.
    """
    try:
        parsed = orjson.loads(read_bytes(path))
        config = parsed["config"]
        num_symbols = int(config["default_num_special_tokens"])
        num_pieces = int(config["default_vocab_size"]) - num_symbols
        pieces = [entry["token_bytes"] for entry in parsed["vocab"][:num_pieces]]
        if len(pieces) != num_pieces or num_pieces < 256:
            raise ValueError(f"it has {len(pieces)} pieces, expected {num_pieces}, at least 256")
        return {
            "pattern": str(config["pattern"]),
            "pieces": pieces,
            "num_symbols": num_symbols,
            "symbols": _symbols(parsed.get("special_tokens")),
        }
    except (ValueError, KeyError, TypeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{path}: is not a Tekken file although its name says so: {what}. Copy the file again."
        ) from error


def _symbols(listed: list[Mapping[str, Any]] | None) -> dict[str, int]:
    if listed is None:
        return {name: token for token, name in enumerate(_UNLISTED)}
    return {symbol["token_str"]: symbol["rank"] for symbol in listed}


def _build_model(path: Path, definition: Mapping[str, Any]) -> Any:
    with requires_extra("tekken", f"{path}: a Tekken file"):
        import tiktoken
    try:
        ranks = {base64.b64decode(piece): rank for rank, piece in enumerate(definition["pieces"])}
        return tiktoken.Encoding(
            "tekken", pat_str=definition["pattern"], mergeable_ranks=ranks, special_tokens={}
        )
    except ValueError as error:
        raise ConfigError(f"{path}: is not a Tekken file: {error}. Copy the file again.") from error
