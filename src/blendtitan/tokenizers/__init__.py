"""One router, two adapters: SentencePiece models and Hugging Face ``tokenizer.json`` files.

Both adapters keep one promise: the ids that delimit documents (BOS, EOS, padding and other
control symbols) are never produced from text. A text that spells out ``</s>`` stays text, so
it cannot end a document.

``build_encoder`` puts a faster library in front of them, where it is proven to give the same ids.

Imports neither torch nor torchtitan, so that worker processes start fast.
"""

from blendtitan.tokenizers.base import ABSENT, Tokenizer
from blendtitan.tokenizers.encoder import FAST_PROVEN, TIERS, Encoder, Tier, build_encoder
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.hub import located
from blendtitan.tokenizers.identity import identity_of
from blendtitan.tokenizers.router import (
    HF_BACKENDS,
    SP_BACKENDS,
    build_tokenizer,
    load_tokenizer,
)
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer

__all__ = [
    "ABSENT",
    "FAST_PROVEN",
    "HF_BACKENDS",
    "HF_FILE",
    "SP_BACKENDS",
    "SP_FILE",
    "TIERS",
    "Encoder",
    "HFTokenizer",
    "SPTokenizer",
    "Tier",
    "Tokenizer",
    "build_encoder",
    "build_tokenizer",
    "identity_of",
    "load_tokenizer",
    "located",
]
