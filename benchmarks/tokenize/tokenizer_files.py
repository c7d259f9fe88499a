"""Two published vocabularies, both from the package mistral-common.

- `sp`: its SentencePiece model of 32,000 pieces, as it is.
- `bpe`: the byte-level BPE vocabulary Tekken, of 130,072 tokens. The package holds it in a form of
  its own; written here as a ``tokenizer.json``, with the same ids and the same pattern of words.
"""

import base64
import json
import shutil
from pathlib import Path

SP_MODEL = "tokenizer.model.v1"
TEKKEN = "tekken_240718.json"


def write_tokenizers(pythons: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Write both tokenizers below ``folder`` and return their paths by name."""
    [data] = (
        pythons["vocabularies"].parents[1].glob("lib/python*/site-packages/mistral_common/data")
    )
    paths = {"sp": folder / "sp" / "tokenizer.model", "bpe": folder / "bpe" / "tokenizer.json"}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / SP_MODEL, paths["sp"])
    paths["bpe"].write_text(json.dumps(_tokenizer_json(json.loads((data / TEKKEN).read_text()))))
    (paths["bpe"].parent / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return paths


def _tokenizer_json(tekken: dict) -> dict:
    config = tekken["config"]
    num_tokens = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {
        base64.b64decode(entry["token_bytes"]): entry["rank"]
        for entry in tekken["vocab"][:num_tokens]
    }
    words = {"type": "Split", "pattern": {"Regex": config["pattern"]}, "behavior": "Isolated"}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(num_tokens, "</s>")],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [words | {"invert": False}, as_bytes | {"trim_offsets": True}],
        },
        "post_processor": None,
        "decoder": as_bytes | {"trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {_spelled(token): rank for token, rank in ranks.items()},
            "merges": [
                [_spelled(part) for part in _merged_parts(token, ranks)]
                for token in ranks
                if len(token) > 1
            ],
        },
    }


def _special(token_id: int, content: str) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, "special": True} | flags


def _merged_parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that are merged into this one: what is left of it by all earlier merges."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(parts[at] + parts[at + 1], len(ranks)) for at in range(len(parts) - 1)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _byte_spellings() -> list[str]:
    """The visible character for each byte, as byte-level BPE of GPT-2 spells them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    codes = dict(zip(visible, visible, strict=True)) | {
        byte: 256 + place for place, byte in enumerate(hidden)
    }
    return [chr(codes[byte]) for byte in range(256)]


_SPELLINGS = _byte_spellings()


def _spelled(token: bytes) -> str:
    return "".join(_SPELLINGS[byte] for byte in token)
