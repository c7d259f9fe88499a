"""SentencePiece models of families that no package of PyPI ships, built from their structure.

The settings are the published ones; the vocabulary is trained here and is much smaller.
"""

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import sentencepiece

_SPACES = ["\u2581" * length for length in range(2, 32)]
_GEMMA = ["<mask>", "<start_of_turn>", "<end_of_turn>", "<table>", "</table>", "<h1>"]

FAMILIES: dict[str, dict[str, object]] = {
    "Gemma-like": {
        "add_dummy_prefix": False,
        "split_digits": True,
        "user_defined_symbols": [*_GEMMA, *(f"<unused{n}>" for n in range(99)), *_SPACES],
    },
    "Yi-like": {
        "add_dummy_prefix": False,
        "split_digits": True,
        "user_defined_symbols": ["<fim_prefix>", "<fim_suffix>", "<|im_start|>", "<|im_end|>"],
    },
    "InternLM-like": {
        "add_dummy_prefix": True,
        "user_defined_symbols": ["<|im_start|>", "<|im_end|>", "<|action_start|>", "<|plugin|>"],
    },
    "Llama-2-like": {"add_dummy_prefix": True},
}


def written_families(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each family's name and model."""
    lines = [line for topic in topics.values() for line in topic.splitlines() if line.strip()]
    for name, settings in FAMILIES.items():
        path = folder / name / "tokenizer.model"
        if path.exists():
            yield name, path
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=str(path)[: -len(".model")],
            vocab_size=4000,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
            **settings,
        )
        yield name, path
