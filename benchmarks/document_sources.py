"""What ``PREFIX.docs.parquet`` costs when text is tokenised.

    python benchmarks/document_sources.py [--rounds 9] [--megabytes 100]

Each round does the work of one process on the same text without the file, with it, and with two
fields kept: it writes the part of a job and joins it to a shard. Times are of the processor. The
least of all rounds counts, because other work on the machine only adds to it.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parent / "tokenize"))

from real_text import write_text
from tokenizer_files import write_tokenizers

from blendtitan.prepare.documents import RejectLimit, Settings, Signals, write_part
from blendtitan.prepare.input_file import ReadOptions
from blendtitan.prepare.plan import plan_jobs, plan_shards
from blendtitan.prepare.records import join_parts
from blendtitan.tokenizers import Encoder, build_encoder, identity_of, load_tokenizer

SHORT_BYTES = 1000
URL = "https://www.example.org/articles/2026/11/{}/index.html"
VARIANTS = {
    "without the file": ReadOptions(has_docs=False),
    "with it": ReadOptions(),
    "with url and id": ReadOptions(keep=("url", "id")),
}


def main() -> None:
    """Print the seconds of each variant, and how many more it took than the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "sources"))
    options = parser.parse_args()
    tokenizers = write_tokenizers({"vocabularies": Path(sys.executable)}, options.folder)
    texts = written_texts(options.folder, options.megabytes * 10**6)
    print("| documents | tokenizer | variant | seconds, least | median | more |")
    print("|---|---|---|---|---|---|")
    for name, tier in (("bpe", "fast"), ("sp", "fast"), ("sp", "reference")):
        tokenizer = load_tokenizer(tokenizers[name])
        encoder = build_encoder(tokenizer, tier)
        for kind, text in texts.items():
            found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            for _ in range(2 if tier == "reference" else options.rounds):
                for variant, read in VARIANTS.items():
                    found[variant].append(seconds(text, options.folder / "out", encoder, read))
            base = min(next(iter(found.values())))
            for variant, times in found.items():
                least, median = min(times), sorted(times)[len(times) // 2]
                more = f"{least / base - 1:+.1%}"
                print(
                    f"| {kind} | {name}, {tier} | {variant} | {least:.2f} | {median:.2f} | {more} |"
                )
                sys.stdout.flush()


def seconds(text: Path, output: Path, encoder: Encoder, options: ReadOptions) -> float:
    """Seconds of the processor for one shard."""
    shutil.rmtree(output, ignore_errors=True)
    [shard] = plan_shards([text], output, keys=["text"], options=options)
    shard.parts_folder.mkdir(parents=True)
    tokenizer = load_tokenizer(encoder.path)
    settings = Settings.of(tokenizer)
    jobs = plan_jobs(shard, 10**12)
    begin = time.process_time()
    counts = write_part(jobs[0], encoder, settings, Signals(), RejectLimit(0, output / "stop"))
    join_parts(jobs, counts, settings, identity_of(tokenizer, settings.eod_id))
    return time.process_time() - begin


def written_texts(folder: Path, num_bytes: int) -> dict[str, Path]:
    """Files of real text, with documents as they are and cut into short ones."""
    texts = {"long": folder / "long.jsonl", "short": folder / "short.jsonl"}
    whole = write_text(folder / "text", num_bytes=num_bytes).path
    with whole.open() as lines, texts["long"].open("w") as long, texts["short"].open("w") as short:
        number = 0
        for line in lines:
            text = json.loads(line)["text"]
            write_document(long, number, text)
            for at in range(0, len(text), SHORT_BYTES):
                write_document(short, number := number + 1, text[at : at + SHORT_BYTES])
    return texts


def write_document(file: TextIO, number: int, text: str) -> None:
    """Write a line of JSON."""
    document = {"id": f"<urn:uuid:{number:032x}>", "url": URL.format(number), "text": text}
    file.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
