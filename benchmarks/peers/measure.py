"""Runs requests, each in a process of its own, round after round, and keeps what they print."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import corpora
from installs import environment
from request import Request
from sources import Source

CHILD = Path(__file__).parent / "child.py"
SECONDS_AT_MOST = 300

Result = dict[str, Any]
"""A request's fields, its ``round``, and what its process found, or its ``error``."""


def measure(
    requests: Iterable[Request], sources: dict[str, Source], python: Path, *, rounds: int
) -> Iterator[Result]:
    """Results of all rounds. In a round the engines follow each other, so drift hits all alike."""
    requests = list(requests)
    for name in {request.source for request in requests}:
        corpora.warm(sources[name])
    for request in {replace(request, first_sample=0, cold=False) for request in requests}:
        if request.variant == "kept":
            _run(request, sources[request.source], python)
    for round_id in range(rounds):
        for request in requests:
            found = _run(request, sources[request.source], python)
            yield {"round": round_id, **asdict(request), **found}


def _run(request: Request, source: Source, python: Path) -> Result:
    if request.cold:
        _make_cold(request, source)
    elif request.section == "startup":
        corpora.warm(source, suffixes=("idx",))  # a cold start before this one dropped them
    elif request.seconds:
        corpora.warm(source)  # the kernel may have given the cache to others since
    try:
        done = subprocess.run(
            [python, CHILD, json.dumps(asdict(request)), source.folder],
            capture_output=True,
            text=True,
            env=environment() | {"HF_HOME": str(source.cache("huggingface"))},
            timeout=SECONDS_AT_MOST,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not ready after {SECONDS_AT_MOST} s"}
    if not done.stdout:
        return {"error": f"status {done.returncode}: {done.stderr[-200:]}"}
    found = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:  # Where the data lies says nothing to a reader.
        found["error"] = found["error"].replace(str(Path(source.folder).parent), "DIR")
    return found


def _make_cold(request: Request, source: Source) -> None:
    # Ours keeps a catalog where it is asked to alone, and is then measured with it.
    if request.engine != "ours":
        shutil.rmtree(source.cache(request.engine), ignore_errors=True)
    corpora.forget_indices(source)
