"""One training process, from its command line to its end."""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import cast

import torch.distributed as dist
from torchtitan.config import ConfigManager
from torchtitan.observability import structured_logger
from torchtitan.tools.logging import init_logger
from torchtitan.trainer import Trainer

from blendtitan.titan.assemble import build_config
from blendtitan.titan.settings import Settings
from blendtitan.titan.shared_catalog import is_first_rank
from blendtitan.titan.toml import read_settings, write_resolved
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.visible import joined, spell_out_logs, visible_logger

logger = visible_logger(__name__)


def train(arguments: Sequence[str]) -> None:
    """Train as the command line says. Ctrl-C ends it with status 130."""
    init_logger()
    spell_out_logs()
    _end_with_agent()
    # On a full disk, each line of TorchTitan's log files would print a traceback of its own, and
    # bury the error that ends the run.
    logging.raiseExceptions = False
    try:
        _train(arguments)
    except KeyboardInterrupt:
        # Where each of a thousand ranks was helps nobody.
        if is_first_rank():
            logger.warning(
                "Interrupted. The same command goes on from the last complete checkpoint."
            )
        sys.exit(130)


def _train(arguments: Sequence[str]) -> None:
    config, settings = read_run(arguments)
    structured_logger.init_structured_logger(
        source="training",
        output_dir=config.dump_folder,
        enable=config.debug.enable_structured_logging,
    )
    run(config, settings)


def read_run(arguments: Sequence[str]) -> tuple[Trainer.Config, Settings | None]:
    """The configuration that the command line asks for, in either form.

    The second value is what the first form consists of; the second form has no settings.
    """
    if any(argument.partition("=")[0] == "--module" for argument in arguments):
        return cast(Trainer.Config, ConfigManager().parse_args(list(arguments))), None
    settings = read_settings(arguments)
    if settings.job.description:
        logger.info("Job: %s", settings.job.description)
    return build_config(settings), settings


def run(config: Trainer.Config, settings: Settings | None = None) -> None:
    """Build the trainer, train, and close everything.

    Settings are written into the run's folder, once its checkpoint and its data are accepted.
    """
    trainer: Trainer = config.build()
    try:
        if settings is not None and isinstance(trainer, BlendTrainer):
            trainer.when_accepted(lambda: _write_settings(settings))
        if config.checkpoint.create_seed_checkpoint:
            if isinstance(trainer, BlendTrainer):
                trainer.accept()
            trainer.checkpointer.save(curr_step=0, last_step=True)
        else:
            trainer.train()
    except Exception as error:
        # At once: as soon as the other ranks notice, torchrun ends this one, said or not.
        logger.error("This rank fails: %s", joined(traceback.format_exception_only(error)))
        raise
    finally:
        trainer.close()
    dist.destroy_process_group()


def _write_settings(settings: Settings) -> None:
    logger.info("The complete configuration is in %s", write_resolved(settings))


def _end_with_agent() -> None:
    """End this rank when torchrun is killed, which leaves its ranks running.

    Started again, the run would have two processes that write the same checkpoints.
    """
    if dist.is_torchelastic_launched():
        threading.Thread(target=_watch_agent, args=(os.getppid(),), daemon=True).start()


def _watch_agent(agent: int) -> None:
    while os.getppid() == agent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
