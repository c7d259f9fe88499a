"""The entry point of training, from the command line to the end of a process.

    torchrun --nproc_per_node 2 -m blendtitan.titan.train --job.config_file configs/debug.toml
    torchrun --nproc_per_node 2 -m blendtitan.titan.train --module MODULE --config NAME

The second form takes a Python function that returns a configuration, as TorchTitan's own entry
point does. Further arguments, ``--section.key value``, override the file or the function.
"""

import faulthandler
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from blendtitan.claims.held import release_claim
from blendtitan.errors import ConfigError, requires_extra
from blendtitan.failures import INTERRUPTED_LINE, end, interrupted, record
from blendtitan.stop_signals import STOP
from blendtitan.visible import spell_out_logs, visible_logger

if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupted)  # while PyTorch is imported

with requires_extra("train", "training", exits=__name__ == "__main__"):
    import torch.distributed as dist
    from torch.distributed.checkpoint.api import CheckpointException

    from blendtitan.titan.upstream import check_versions, drop_noise, is_main, prepare

# Modules that import torchtitan are imported in functions, after ``prepare``.
if TYPE_CHECKING:
    from torchtitan.trainer import Trainer

    from blendtitan.titan.settings import Settings

logger = visible_logger(__name__)

_ERRORS = (Exception, CheckpointException)  # the second is no Exception


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with the command line's configuration. Ctrl-C ends the process with status 130."""
    faulthandler.enable()
    gc.disable()  # TorchTitan collects at steps of its choice; until then it only slows imports
    try:
        prepare()
        check_versions("0.3")
        _prepare_logs()
        STOP.watch()
        _train(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        if not dist.is_initialized() or dist.get_rank() == 0:
            logger.warning(INTERRUPTED_LINE)
        sys.exit(130)
    except _ERRORS as error:
        record(error)
        end()


def _prepare_logs() -> None:
    from torchtitan.tools.logging import init_logger

    init_logger()
    spell_out_logs()
    drop_noise()
    # On a full disk, each line of a log file would print a traceback that buries the run's error.
    logging.raiseExceptions = False


def _train(arguments: Sequence[str]) -> None:
    from torchtitan.observability import structured_logger

    config, settings = read_run(arguments)
    structured_logger.init_structured_logger(
        source="training",
        output_dir=config.dump_folder,
        enable=config.debug.enable_structured_logging,
    )
    run(config, settings)


def read_run(arguments: Sequence[str]) -> "tuple[Trainer.Config, Settings | None]":
    """The configuration of the command line, in either form, and the settings of the first form."""
    if any(argument.partition("=")[0] == "--module" for argument in arguments):
        from torchtitan.config import ConfigManager

        return cast("Trainer.Config", ConfigManager().parse_args(list(arguments))), None
    if is_main():
        raise ConfigError("TorchTitan's main branch needs --module blendtitan.titan_main, no TOML")
    from blendtitan.titan import assemble, toml

    settings = toml.read_settings(arguments)
    if settings.job.description:
        logger.info("Job: %s", settings.job.description)
    return assemble.build_config(settings), settings


def run(config: "Trainer.Config", settings: "Settings | None" = None) -> None:
    """Train, and write the settings into the run's folder once checkpoint and data are accepted."""
    from blendtitan.titan.trainer import BlendTrainer

    with ExitStack() as stack:
        stack.callback(release_claim)  # last of all
        try:
            trainer: Trainer = config.build()
            stack.callback(trainer.close)
            if settings is not None and isinstance(trainer, BlendTrainer):
                trainer.when_accepted(lambda: _write_settings(settings))
            if config.checkpoint.create_seed_checkpoint:
                if isinstance(trainer, BlendTrainer):
                    trainer.accept()
                trainer.checkpointer.save(curr_step=0, last_step=True)
            else:
                trainer.train()
        except _ERRORS as error:  # at once: when the other ranks notice, torchrun ends this one
            record(error, config.dump_folder)
            raise
    dist.destroy_process_group()


def _write_settings(settings: "Settings") -> None:
    from blendtitan.titan.toml import write_resolved

    logger.info("The complete configuration is in %s", write_resolved(settings))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
