"""Our tokenizers behind TorchTitan's interface."""

from pathlib import Path

from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.titan.tokenizer import BlendTokenizer
from tests.small_corpora import EOD, VOCAB_SIZE


def test_a_tokenizer_is_read_from_its_path(tokenizer_path: Path) -> None:
    tokenizer = BlendTokenizer.Config(path=str(tokenizer_path)).build(tokenizer_path="")
    ids = tokenizer.encode("abc", add_bos=True, add_eos=True)

    assert isinstance(tokenizer, BaseTokenizer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert tokenizer.eos_id == ids[-1] == EOD
    assert tokenizer.decode(ids) == "abc"


def test_without_a_path_it_is_read_from_the_folder_of_assets(tokenizer_path: Path) -> None:
    tokenizer = BlendTokenizer.Config().build(tokenizer_path=str(tokenizer_path.parent))

    assert tokenizer.eos_id == EOD
