import pytest

from blendtitan.errors import ConfigError
from blendtitan.prepare.workers import Rank, rank_of_process


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Rank(0, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, Rank(2, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, Rank(1, 3)),
        ({"PMI_RANK": "5", "PMI_SIZE": "6", "PALS_RANKID": "5"}, Rank(5, 6)),
        ({"SLURM_NTASKS": "4"}, Rank(0, 1)),
    ],
    ids=["alone", "Slurm", "Open MPI", "PBS with PALS", "a Slurm allocation, outside of a step"],
)
def test_launchers_determine_the_rank(environment: dict[str, str], expected: Rank) -> None:
    assert rank_of_process(None, None, environment) == expected


def test_mpiexec_inside_slurm_determines_the_rank() -> None:
    """Its processes inherit Slurm's variables, all of them the same."""
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}

    assert rank_of_process(None, None, slurm | {"PMI_RANK": "3", "PMI_SIZE": "4"}) == Rank(3, 4)


def test_given_ranks_take_precedence() -> None:
    environment = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}

    assert rank_of_process(0, 2, environment) == Rank(0, 2)


@pytest.mark.parametrize(
    ("rank", "world_size", "environment", "message"),
    [
        (1, None, {}, "--rank and --world-size must be given together"),
        (2, 2, {}, "expected a rank from 0"),
        (None, None, {"PMI_RANK": "x", "PMI_SIZE": "2"}, "PMI_RANK is 'x'"),
    ],
)
def test_an_impossible_rank_is_an_error(
    rank: int | None, world_size: int | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_of_process(rank, world_size, environment)
