"""Synthetic corpora: what a source holds, and where. Read by every measuring process.

Token ``i`` of a shard is ``1 + (i * step) mod PRIME`` with a step of its corpus, or EOD where a
document ends, so that a batch shows from which corpus its tokens are.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

PRIME = 65_521
EOD = 0
SPLIT = "98,1,1"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Shards of some corpora in one folder."""

    folder: str
    num_shards: int
    num_corpora: int
    documents: int
    """Documents of each shard."""

    mean_len: int
    sparse: bool = False
    """The ``.bin`` files are holes of the right size: zeros, which are EOD."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The source that was written to a folder."""
        return cls(**json.loads((folder / "source.json").read_text()) | {"folder": str(folder)})

    def write(self) -> None:
        """Say that it is complete."""
        (Path(self.folder) / "source.json").write_text(json.dumps(asdict(self)))

    @property
    def name(self) -> str:
        """That of its folder."""
        return Path(self.folder).name

    @property
    def prefixes(self) -> list[str]:
        """Of each shard, absolute where the folder is."""
        return [
            f"{self.folder}/corpus_{self.corpus_of(shard):02}/shard_{shard:04}"
            for shard in range(self.num_shards)
        ]

    @property
    def weights(self) -> list[float]:
        """Of each shard. Corpora differ by up to a half in how often their shards are read."""
        return [2.0 + self.corpus_of(shard) % 2 for shard in range(self.num_shards)]

    @property
    def holds(self) -> str:
        """What it holds, in words."""
        documents = self.num_shards * self.documents
        return (
            f"about {documents * self.mean_len / 1e6:,.0f} M tokens in {documents:,} documents, "
            f"{self.num_shards:,} shards, corpora: {self.num_corpora}"
            + (" (the `.bin` files are holes)" if self.sparse else "")
        )

    @property
    def file_list(self) -> Path:
        """Of this project: weight, prefix and corpus of each shard."""
        return Path(self.folder) / "list.txt"

    @property
    def mean_tokens(self) -> int:
        """Tokens of a shard, on average."""
        return self.documents * self.mean_len

    def corpus_of(self, shard: int) -> int:
        """Corpora take turns."""
        return shard % self.num_corpora

    def step_of(self, corpus: int) -> int:
        """What a token of the corpus is more than the one before it, modulo ``PRIME``."""
        return 7_919 + 2 * corpus

    def num_samples(self, seq_len: int) -> int:
        """Samples to ask a peer for that builds a table of them: nearly one epoch."""
        return int(0.95 * self.num_shards * self.mean_tokens / seq_len)

    def cache(self, engine: str) -> Path:
        """Folder for what an engine keeps between starts."""
        return Path(self.folder) / "cache" / engine
