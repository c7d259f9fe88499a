"""Makes the folders beside this file with mosaicml-streaming 0.13.0 and litdata 0.2.76.

    python tests/data/token_rows/make.py

Both need other versions of packages than the tests, so their files are kept here. Without their
dependencies, streaming imports once `transformers` and its parts for images are replaced:

    pip install torch==2.13.0 numpy pyarrow brotli python-snappy zstd xxhash tqdm pillow filelock \
        requests boto3 lightning-utilities obstore catalogue
    pip install --no-deps mosaicml-streaming==0.13.0 litdata==0.2.76

The argument ``old`` makes only litdata_old and litdata_old_zstd, with litdata 0.2.17, which counts
the bytes of a chunk without its offsets.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
EOD = 2
DOCUMENTS = [[*range(3 + 7 * n, 4 + 7 * n + n % 5), EOD] for n in range(12)]

for name in ("streaming.vision", "streaming.multimodal", "streaming.text", "transformers"):
    sys.modules[name] = ModuleType(name)
for name, kind in (("feature_extraction", "BatchFeature"), ("tokenization", "BatchEncoding")):
    module = ModuleType(name)
    setattr(module, kind, type(kind, (), {}))
    suffix = "_utils" if kind == "BatchFeature" else "_utils_base"
    sys.modules[f"transformers.{name}{suffix}"] = module

import torch  # noqa: E402
from litdata.streaming import TokensLoader  # noqa: E402
from litdata.streaming.cache import Cache  # noqa: E402
from streaming import MDSWriter  # noqa: E402

Convert = Callable[[list[int]], Any]


def write_mds(name: str, encoding: str, convert: Convert, compression: str | None = None) -> None:
    folder = HERE / f"mds_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    columns = {"tokens": encoding, "url": "str", "number": "int"}
    with MDSWriter(
        out=str(folder), columns=columns, compression=compression, size_limit=500
    ) as writer:
        for number, document in enumerate(DOCUMENTS):
            row = {"tokens": convert(document), "url": f"org/{number}", "number": number}
            writer.write(row)


def write_litdata(name: str, convert: Convert, **settings: Any) -> None:
    folder = HERE / f"litdata_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    cache = Cache(str(folder), **{"chunk_size": 7} | settings)
    for number, document in enumerate(DOCUMENTS):
        cache[number] = convert(document)
    cache.done()
    cache.merge()


def write_old() -> None:
    tokens = {"item_loader": TokensLoader(4), "chunk_size": 20}
    write_litdata("old", lambda ids: torch.tensor(ids, dtype=torch.int32), **tokens)
    write_litdata("old_zstd", lambda ids: {"input_ids": np.array(ids)}, compression="zstd")


def main() -> None:
    write_mds("type", "ndarray:int32", lambda ids: np.array(ids, np.int32))
    write_mds("zstd", "ndarray", lambda ids: np.array(ids, np.int64), "zstd:7")
    write_mds("bytes", "bytes", lambda ids: np.array(ids, np.int64).tobytes())
    write_mds("shape", "ndarray:uint16:4", lambda ids: np.array((ids * 4)[:4], np.uint16))
    write_mds("gz", "ndarray:uint16", lambda ids: np.array(ids, np.uint16), "gz")
    write_mds("pickle", "pkl", lambda ids: ids)
    tokens = {"item_loader": TokensLoader(4), "chunk_size": 20}
    write_litdata("tokens", lambda ids: np.array(ids, np.uint16), **tokens)
    write_litdata("tokens_torch", lambda ids: torch.tensor(ids, dtype=torch.int32), **tokens)
    write_litdata("dict", lambda ids: {"url": "org", "input_ids": np.array(ids, np.int64)})
    write_litdata("lists", lambda ids: {"url": "org", "input_ids": ids})
    for level in ("chunk", "batch", "sample"):
        write_litdata(
            f"zstd_{level}",
            lambda ids: {"url": "org", "input_ids": torch.tensor(ids)},
            compression="zstd",
            compression_level=level,
            compression_batch_size=3 if level == "batch" else None,
        )


if __name__ == "__main__":
    write_old() if sys.argv[1:] == ["old"] else main()
