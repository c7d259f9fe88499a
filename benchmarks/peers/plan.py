"""What is measured: every request of a round, section by section."""

from dataclasses import replace

from request import Request

SHAPES = ((8, 4096), (1, 8192))
PREFETCHES = (0, 1, 2, 4, 8)
STEP_MS = 20.0
BLEND_SAMPLES = 10_000_000
SLOTS = (0, 10**6, 10**9, 10**12)
RESUMED = 10**7
PEERS = ("megatron", "olmo", "lit", "mosaic", "titan")
INDEXED = ("megatron", "olmo")
"""Peers that blend what lies on disk as it is, and resume by a number."""

DEFAULTS = {"workers": 2, "prefetch": 2}
"""Ours, as it is where nothing is set; the peers' default is no workers."""

ONCE = ("workers", "files")
"""Sections that one round measures: they answer how many times slower, or yes or no."""


def all_requests(*, quick: bool = False) -> dict[str, list[Request]]:
    """Requests of one round by section; ``quick`` is one case of each, without the peers."""
    seconds = 0.05 if quick else 1.5
    sections = {
        "reading": _reading(seconds),
        "workers": _workers(seconds),
        "prefetch": _prefetch(seconds),
        "startup": _startup(),
        "blending": _blending(),
        "files": _files(),
    }
    return {
        name: [request for request in requests if not quick or _is_quick(request)]
        for name, requests in sections.items()
    }


def _is_quick(request: Request) -> bool:
    return (
        request.engine not in PEERS and request.source == "many" and request.seq_len == SHAPES[0][1]
    )


def _reading(seconds: float) -> list[Request]:
    """Without workers, threads or prefetch, where an engine lets itself be told."""
    requests: list[Request] = []
    for batch, seq_len in SHAPES:
        shape = {"section": "reading", "batch": batch, "seq_len": seq_len, "seconds": seconds}
        for source in ("one", "many"):
            own = [("limit", "two"), ("limit", "one"), ("ours", "")]
            requests += [
                Request(engine=engine, variant=variant, source=source, **shape)
                for engine, variant in own
            ]
        requests += [Request(engine=engine, source="one", **shape) for engine in PEERS]
        requests.append(Request(engine="olmo", variant="threads", source="one", **shape))
        requests.append(Request(engine="ours", variant="open", source="many", **shape))
        requests += [Request(engine=engine, source="many", **shape) for engine in INDEXED]
    return requests


def _workers(seconds: float) -> list[Request]:
    """With two workers: processes, and threads in ours."""
    return [
        Request(
            section="workers", engine=engine, source="one", batch=batch, seq_len=seq_len,
            seconds=seconds, workers=2, prefetch=2,
        )
        for batch, seq_len in SHAPES
        for engine in ("ours", *PEERS)
    ]  # fmt: skip


def _prefetch(seconds: float) -> list[Request]:
    """Ours: tokens per second, and the wait of a training step that takes longer than a read."""
    return [
        Request(
            section="prefetch", engine="ours", source="many", seconds=seconds,
            prefetch=prefetch, workers=2 if prefetch else 0, step_ms=step_ms,
        )
        for step_ms in (0.0, STEP_MS)
        for prefetch in PREFETCHES
    ]  # fmt: skip


def _startup() -> list[Request]:
    requests: list[Request] = []
    for source, first_sample in (("documents", 0), ("many", 0), ("long", RESUMED)):
        place = {"section": "startup", "source": source, "first_sample": first_sample}
        ours = Request(engine="ours", **place, **DEFAULTS)
        for cold in (True, False):
            requests.append(Request(engine="floor", batch=0, cold=cold, **place))
            requests.append(replace(ours, cold=cold))
            # The cold start leaves in the cache what the warm one finds.
            requests += [Request(engine=engine, cold=cold, **place) for engine in INDEXED]
        requests += [replace(ours, variant="kept", cold=cold) for cold in (True, False)]
        requests.append(Request(engine="megatron", variant="fast", **place))
    return requests


def _blending() -> list[Request]:
    ours = Request(section="blending", engine="ours", variant="kept", source="many", **DEFAULTS)
    requests = [replace(ours, first_sample=slot) for slot in SLOTS]
    return [*requests, Request(section="blending", engine="megatron", source="many", batch=0)]


def _files() -> list[Request]:
    """What starts with at most 256 open files."""
    return [
        replace(request, max_files=limit)
        for request in (
            Request(section="files", engine="ours", source="many", **DEFAULTS),
            *(Request(section="files", engine=engine, source="many") for engine in INDEXED),
        )
        for limit in (256, 4096)
    ]
