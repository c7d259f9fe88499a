"""Which of several processes, on one or more machines, this is: as told, or as launchers say."""

from collections.abc import Mapping
from dataclasses import dataclass

from blendtitan.errors import ConfigError

# Rank and number of ranks, by launcher. PALS, the launcher of HPE Cray under PBS, sets the two
# of PMI, as MPICH and Intel MPI do; a rank alone, as PALS_RANKID, would not do. Slurm's come
# last: what an mpiexec starts inside of a Slurm job inherits those of the mpiexec.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


@dataclass(frozen=True, slots=True)
class Rank:
    """One of ``world_size`` processes that share a plan."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"the rank is {self.rank} and the world size {self.world_size}, expected a rank "
                f"from 0 to the world size less 1"
            )


def rank_of_process(
    rank: int | None, world_size: int | None, environment: Mapping[str, str]
) -> Rank:
    """The rank that was given, else the one that Slurm, PBS or MPI gave, else the only one.

    Raises:
        ConfigError: One of the two is given without the other, or they do not fit.
    """
    if (rank is None) != (world_size is None):
        raise ConfigError("--rank and --world-size are given together, or neither of them")
    if rank is not None and world_size is not None:
        return Rank(rank, world_size)
    for rank_name, size_name in _VARIABLES:
        if rank_name in environment and size_name in environment:
            try:
                return Rank(int(environment[rank_name]), int(environment[size_name]))
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    f"{rank_name} is {environment[rank_name]!r} and {size_name} "
                    f"{environment[size_name]!r}, expected a rank and a number of ranks. Give "
                    f"--rank and --world-size."
                ) from error
    return Rank()
