"""Files made to do harm: nothing outside a ``.bin`` is read, nothing in a file is run."""

import ast
import json
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.errors import BlendTitanError, ConfigError, CorruptShardError, ShardError
from blendtitan.prepare.merge import merge
from blendtitan.shards.repair import repair
from blendtitan.shards.stats import describe
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.catalog_bytes import decode_catalog
from blendtitan.storage.index_format import CODE_OF_DTYPE, HEADER, MAGIC, VERSION
from blendtitan.storage.reader import ShardIndex
from blendtitan.tokenizers import load_tokenizer

# The fixture is emptied for each example.
ONE_FIXTURE = [HealthCheck.function_scoped_fixture]

SOURCE = Path(__file__).parents[1] / "src/blendtitan"


@dataclass(frozen=True)
class HostileShard:
    """An ``.idx`` that passes the checks of opening, with anything inside its arrays."""

    idx: bytes
    bin: bytes

    def write(self, prefix: Path) -> None:
        """Write both files."""
        prefix.parent.mkdir(exist_ok=True)
        Path(f"{prefix}.idx").write_bytes(self.idx)
        Path(f"{prefix}.bin").write_bytes(self.bin)


EXTREMES = st.sampled_from([-1, -2, 2**62, 2**63 - 1, -(2**63), -(2**62), 2**31])


@st.composite
def hostile_shards(draw: st.DrawFn, *, uncounted_eods: bool = False) -> HostileShard:
    dtype = np.dtype(draw(st.sampled_from(["<u1", "<i1", "<u2", "<i4", "<i8"])))
    num_sequences, num_documents = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    lens = draw(st.lists(st.integers(0, 6), min_size=num_sequences, max_size=num_sequences))
    lens[0] += 1
    right = [0, *np.cumsum(lens)[:-1] * dtype.itemsize]
    num_tokens = sum(lens)

    def some(values: list[int], likely: st.SearchStrategy[int]) -> list[int]:
        """The inner ones changed, as often as not; the ends are checked when it is opened."""
        inner = [draw(st.just(value) | likely | EXTREMES) for value in values[1:-1]]
        return [values[0], *inner, *values[1:][-1:]]

    pointers = some([int(at) for at in right], st.integers(0, num_tokens * dtype.itemsize))
    cuts = sorted(
        draw(
            st.lists(
                st.integers(0, num_sequences),
                min_size=num_documents - 1,
                max_size=num_documents - 1,
            )
        )
    )
    documents = some([0, *cuts, num_sequences], st.integers(0, num_sequences))
    told = [*(draw(st.just(n) | st.integers(-(2**31), 2**31 - 1)) for n in lens[:-1]), lens[-1]]
    extra = num_documents if uncounted_eods else 0
    tokens = draw(
        st.lists(
            st.sampled_from([2, 5, 6, 7]), min_size=num_tokens + extra, max_size=num_tokens + extra
        )
    )
    code = CODE_OF_DTYPE[dtype]
    return HostileShard(
        b"".join(
            [
                HEADER.pack(MAGIC, VERSION, code, num_sequences, num_documents + 1),
                np.array(told, "<i4").tobytes(),
                np.array(pointers, "<i8").tobytes(),
                np.array(documents, "<i8").tobytes(),
            ]
        ),
        np.array(tokens, dtype).tobytes(),
    )


@pytest.fixture
def placed_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """File and byte offset of every positioned read."""
    placed: list[tuple[str, int]] = []

    def noting(read: Callable[..., object]) -> Callable[..., object]:
        def noted(fd: int, what: object, at: int) -> object:
            placed.append((os.readlink(f"/proc/self/fd/{fd}"), at))
            return read(fd, what, at)

        return noted

    monkeypatch.setattr(os, "pread", noting(os.pread))
    monkeypatch.setattr(os, "preadv", noting(os.preadv))
    return placed


@given(shard=hostile_shards())
def test_the_tests_shards_pass_the_checks_of_opening(
    tmp_path_factory: pytest.TempPathFactory, shard: HostileShard
) -> None:
    """Otherwise they would not test what comes after."""
    prefix = tmp_path_factory.getbasetemp() / "opened/web"
    shard.write(prefix)

    assert ShardIndex.open(prefix).num_documents >= 1


def check_reads(placed: list[tuple[str, int]], prefix: Path) -> None:
    names = {f"{prefix}.bin", f"{prefix}.idx"}
    sizes = {name: os.stat(name).st_size for name in names if os.path.exists(name)}
    for name, at in placed:
        if name in sizes:
            assert 0 <= at <= sizes[name]


@settings(suppress_health_check=ONE_FIXTURE)
@given(
    shard=hostile_shards(),
    eod_id=st.sampled_from([2, 9]),
    split=st.sampled_from(["1", "50,30,20"]),
    vocab_size=st.sampled_from([None, 10]),
)
def test_a_hostile_idx_gives_a_loader_tokens_of_its_bin_or_an_error(
    placed_reads: list[tuple[str, int]],
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shard: HostileShard,
    eod_id: int,
    split: str,
    vocab_size: int | None,
) -> None:
    """Nothing else comes out: no other file's bytes, no memory that was never written."""
    prefix = tmp_path_factory.getbasetemp() / "loaded/web"
    shard.write(prefix)
    placed_reads.clear()
    config = BlendConfig(data_file_list=prefix.parent, seq_length=3, eod_token_id=eod_id,
                         split=split, vocab_size=vocab_size)  # fmt: skip
    with suppress(BlendTitanError):
        datasets = build_datasets(config)
        for dataset in (datasets.train, datasets.valid, datasets.test):
            if dataset is None:
                continue
            for consumed_samples in range(0, 40, 4):
                with suppress(BlendTitanError):
                    batch = DataLoader(dataset, 4, num_workers=0).batch_at(consumed_samples)

                    assert set(batch.input_ids.flatten().tolist()) <= {2, 5, 6, 7, eod_id}
    check_reads(placed_reads, prefix)


@settings(suppress_health_check=ONE_FIXTURE)
@given(shard=hostile_shards() | hostile_shards(uncounted_eods=True))
def test_a_hostile_idx_gives_the_tools_an_error_or_a_report(
    placed_reads: list[tuple[str, int]],
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shard: HostileShard,
) -> None:
    folder = tmp_path_factory.mktemp("tools")
    prefix = folder / "in/web"
    shard.write(prefix)
    placed_reads.clear()
    report = describe([prefix])
    (found,) = verify([prefix], Expected(vocab_size=8, eod_id=2), threads=1)
    with suppress(BlendTitanError):
        (merged,) = merge([prefix], folder / "out", target_tokens=100)

        assert Path(f"{merged.prefix}.bin").read_bytes() == shard.bin
        assert not [p for p in found.problems if ".idx" in p]
    repair([prefix], eod_id=2)

    assert Path(f"{prefix}.bin").read_bytes() == shard.bin
    assert report.total is not None or any(
        isinstance(counts, ShardError) for _, counts in report.shards
    )
    check_reads(placed_reads, prefix)


UNSAFE = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "numpy.load",
    "torch.load", "eval", "exec", "__import__", "allow_pickle", "trust_remote_code",
}  # fmt: skip
SAFE_WITH = {
    "np.load": "allow_pickle=False",
    "numpy.load": "allow_pickle=False",
    "torch.load": "weights_only=True",
}


def unsafe_uses(source: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            call, words = ast.unparse(node.func), map(ast.unparse, node.keywords)
            if call in SAFE_WITH:
                names += [] if SAFE_WITH[call] in words else ["numpy.load"]
            else:
                names += [call, *(w.arg or "" for w in node.keywords if is_not_false(w.value))]
    return [name for name in names if name in UNSAFE]


def is_not_false(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and value.value is False)


@pytest.mark.parametrize(
    ("source", "is_unsafe"),
    [
        ("import pickle", True),
        ("from pickle import loads", True),
        ("from numpy import load", True),
        ("np.load(path)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, mmap_mode='r', allow_pickle=False)", False),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=True)", False),
        ("AutoTokenizer.from_pretrained(path, trust_remote_code=trust)", True),
        ("AutoTokenizer.from_pretrained(path, trust_remote_code=False)", False),
        ("eval(text)", True),
        ("orjson.loads(text)", False),
    ],
)
def test_unsafe_characters(source: str, *, is_unsafe: bool) -> None:
    assert bool(unsafe_uses(source)) == is_unsafe


# PyTorch's checkpoints are pickles. Its unpickler calls nothing: tests/runs/test_audit.py.
READS_PICKLES_WITHOUT_RUNNING_THEM = SOURCE / "checkpoints.py"
# It adds to a checkpoint of the user's run, which PyTorch reads as it does when a run resumes.
WRITES_PICKLES = SOURCE / "moving/checkpoint.py"


def test_the_source_has_nothing_that_loads_a_pickle_or_runs_data() -> None:
    uses = {path: unsafe_uses(path.read_text()) for path in SOURCE.rglob("*.py")}

    assert {path: found for path, found in uses.items() if found} == {
        READS_PICKLES_WITHOUT_RUNNING_THEM: ["pickle"],
        WRITES_PICKLES: ["pickle"],
    }


ADDED = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_catalog_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "made")
    archive = tmp_path / "catalog.npz"
    np.savez(archive, texts=np.array([evil], object), weights=np.array([evil], object))
    for data in (archive.read_bytes(), pickle.dumps(evil)):
        with pytest.raises(CorruptShardError, match="the catalog is damaged"):
            decode_catalog(data)

    assert not evil.path.exists()


def test_code_in_a_tokenizer_folder_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that trust remote code import the module that ``auto_map`` names."""
    content = {
        "version": "1.0",
        "added_tokens": [ADDED | {"id": 2, "content": "</s>", "special": True}],
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    settings = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
                "tokenizer_class": "evil.Evil", "eos_token": "</s>"}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("evil.py", "tokenizer.py", "__init__.py"):
        (tmp_path / name).write_text(f"import os; os.mkdir({str(tmp_path / 'made')!r})")
    monkeypatch.chdir(tmp_path)

    assert load_tokenizer(tmp_path).eos_id == 2
    assert not (tmp_path / "made").exists()
    assert "evil" not in sys.modules


def test_a_pickle_in_place_of_a_tokenizer_is_refused(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "made")
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / name).write_bytes(pickle.dumps(evil))
        with pytest.raises(ConfigError):
            load_tokenizer(tmp_path / name)

    assert not evil.path.exists()
