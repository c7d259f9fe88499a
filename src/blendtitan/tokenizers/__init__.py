"""Tokenizers: SentencePiece models, ``tokenizer.json`` and Tekken files behind one interface.

The ids that delimit documents (BOS, EOS, padding and other control symbols) are never produced
from text. A text that spells out ``</s>`` stays text, so it cannot end a document.

``build_encoder`` uses a faster library if it is proven to give the same ids.

Imports neither torch nor torchtitan, so that worker processes start fast.
"""

from blendtitan.tokenizers.base import ABSENT, Tokenizer, located
from blendtitan.tokenizers.encoder import FAST_PROVEN, TIERS, Encoder, Tier, build_encoder
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.router import (
    HF_BACKENDS,
    SP_BACKENDS,
    TEKKEN_BACKENDS,
    build_tokenizer,
    identity_of,
    load_tokenizer,
    tokenizer_identity,
)
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer
from blendtitan.tokenizers.tekken import TEKKEN_FILE, TekkenTokenizer

__all__ = [
    "ABSENT",
    "FAST_PROVEN",
    "HF_BACKENDS",
    "HF_FILE",
    "SP_BACKENDS",
    "SP_FILE",
    "TEKKEN_BACKENDS",
    "TEKKEN_FILE",
    "TIERS",
    "Encoder",
    "HFTokenizer",
    "SPTokenizer",
    "TekkenTokenizer",
    "Tier",
    "Tokenizer",
    "build_encoder",
    "build_tokenizer",
    "identity_of",
    "load_tokenizer",
    "located",
    "tokenizer_identity",
]
