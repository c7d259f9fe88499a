"""Staging of a TorchTitan run. Every rank learns which ranks share its node's disk."""

import os
from pathlib import Path

import torch.distributed as dist

from blendtitan.errors import OutputError
from blendtitan.placed_loader import PlacedLoader
from blendtitan.settings.section import BlendSection
from blendtitan.staging.folder import StageFolder
from blendtitan.staging.run import Neighbour, Staging, begin


def stage(placed: PlacedLoader, section: BlendSection, num_samples: int) -> Staging:
    """Stage what the rest of a run reads. A collective operation.

    Args:
        placed: The loader at the position where training begins or continues.
        section: ``[blendcorpus]``, with a ``data_stage_path``.
        num_samples: Samples of the whole run.

    Raises:
        OutputError: The folder of a rank cannot be used; on every rank.
        ConfigError: As ``begin``.
    """
    loader = placed._loader
    assert section.data_stage_path is not None
    assert section.data_stage_bytes is not None
    path, folder, error = Path(section.data_stage_path).absolute(), None, ""
    try:
        folder = StageFolder.claim(path, process=int(os.environ.get("LOCAL_RANK", "0")))
    except OutputError as caught:  # the other ranks wait in any case
        error = str(caught)
    own = Neighbour(str(folder and folder.path), loader.course.dp_rank)
    disk = folder.disk if folder else ""
    ranks = _gathered((disk, own, error))
    for _, _, found in ranks:
        if found:
            raise OutputError(found)
    assert folder is not None
    return begin(
        loader,
        folder,
        [Neighbour(*each) for each_disk, each, _ in ranks if each_disk == disk],
        num_bytes=section.data_stage_bytes,
        num_samples=num_samples,
        reports=ranks[0][0] == disk,
    )


def _gathered(own: tuple[str, Neighbour, str]) -> list[tuple[str, Neighbour, str]]:
    if not dist.is_initialized():
        return [own]
    ranks = [own] * dist.get_world_size()
    dist.all_gather_object(ranks, own)
    return ranks
