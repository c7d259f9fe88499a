"""SentencePiece models, read directly: a conversion could change the ids."""

from pathlib import Path

import sentencepiece

from blendtitan.errors import ConfigError
from blendtitan.tokenizers.base import EncodedTexts, Tokenizer, concatenated, file_in, read_bytes
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

SP_FILE = "tokenizer.model"


class SPTokenizer(Tokenizer):
    """A SentencePiece model: a ``.model`` file, or a folder that holds ``tokenizer.model``.

    SentencePiece itself reads no control symbol from text. It does read the user-defined symbols
    of a model, which is their purpose, and does not accept one of those as BOS or EOS.
    """

    def __init__(self, model_path: str | Path, eos: str | int | None = None) -> None:
        self.path = file_in(Path(model_path), SP_FILE)
        self._model = _read_sentencepiece(self.path)
        self.vocab_size = self._model.vocab_size()
        self.bos_id = self._model.bos_id()
        self.asked_eos = eos
        self.eos_id = self._model.eos_id() if eos is None else self._control_id(eos)
        self.pad_id = self._model.pad_id()
        self.unk_id = self._model.unk_id()
        eos = "no EOS" if self.eos_id < 0 else f"EOS {self.eos_id}"
        logger.info("%s: SentencePiece, %d ids, %s", self.path, self.vocab_size, eos)

    def _control_id(self, eos: str | int) -> int:
        found = eos if isinstance(eos, int) else self._model.piece_to_id(eos)
        is_known = 0 <= found < self.vocab_size
        if is_known and isinstance(eos, str):
            is_known = self._model.id_to_piece(found) == eos
        if not is_known or not self._is_in_no_text(found):
            control = filter(self._model.is_control, range(self.vocab_size))
            symbols = [self._model.id_to_piece(token) for token in control]
            such_as = f", such as {', '.join(symbols[:8])}" if symbols else f". {self.eos_advice}"
            raise ConfigError(
                f"{self.path}: {eos!r} is requested as EOS, expected a control symbol, which no "
                f"text contains{such_as}"
            )
        return found

    @property
    def eos_advice(self) -> str:
        """See ``Tokenizer.eos_advice``."""
        if any(map(self._is_in_no_text, range(self.vocab_size))):
            return super().eos_advice
        return (
            "This model has no control symbol at all, so none of its tokens can end documents: "
            "use a tokenizer that has one, or train this one again with an EOS (SentencePiece's "
            "--eos_id)."
        )

    def _is_in_no_text(self, token: int) -> bool:
        return self._model.is_control(token) or self._model.is_unused(token)

    def encode_batch(self, texts: list[str]) -> EncodedTexts:
        """See ``Tokenizer.encode_batch``."""
        if len(texts) == 1:  # a list starts a thread, which takes longer than a short text
            return concatenated([self._model.encode(texts[0], return_type="numpy")])
        return concatenated(self._model.encode(texts, return_type="numpy", num_threads=1))

    def control_ids(self) -> frozenset[int]:
        """Ids of all control symbols and of the unknown symbol."""
        control = filter(self._model.is_control, range(self.vocab_size))
        return super().control_ids() | frozenset(control)

    def symbols(self) -> list[str]:
        """Spellings of control symbols, of the unknown symbol and of single bytes."""
        return [
            self._model.id_to_piece(token)
            for token in range(self.vocab_size)
            if self._model.is_control(token)
            or self._model.is_unknown(token)
            or self._model.is_byte(token)
        ]

    def _decode_ids(self, ids: list[int]) -> str:
        return self._model.decode(ids)


def _read_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    content = read_bytes(path)
    try:
        # The library accepts an empty model, and fails at its first use.
        return sentencepiece.SentencePieceProcessor(model_proto=content or b"empty")
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: {len(content):,} bytes that are not a SentencePiece model, expected one, or "
            f"a tokenizer.json or tekken.json. If it should be one, the copy is damaged or "
            f"incomplete: copy the file again. For a tokenizer.model of tiktoken, use the "
            f"tokenizer.json of the same tokenizer."
        ) from error
