"""Commands from text to a training run: init, prepare and train."""

import os
from argparse import Namespace

from blendtitan.commands.arguments import argument, command, number, path
from blendtitan.terminal import say


@command(
    "init",
    "create a run folder, with the data and the configuration of a run",
    path("folder", "DIR", "run folder to create"),
    argument(
        "--data",
        "text: a file, folder, glob pattern or URL, or a folder of shards; NAME=PATH names the "
        "corpus",
        metavar="PATH",
        nargs="+",
        required=True,
    ),
    argument(
        "--tokenizer",
        "SentencePiece .model, Hugging Face tokenizer.json, a folder with one, or a name ORG/NAME "
        "in the local Hugging Face cache",
        metavar="PATH",
        required=True,
    ),
    argument(
        "--template",
        "configuration to start from, such as llama3_8b (default: %(default)s, a small model that "
        "trains on any machine)",
        metavar="NAME",
        default="debug",
    ),
    argument("--key", "field or column that holds the text", metavar="NAME", default="text"),
)
def _init(options: Namespace) -> None:
    from blendtitan.start.folder import CONFIG, DATA, corpus_table, init_folder
    from blendtitan.tables import show

    folder = options.folder
    found = init_folder(
        folder, options.data, options.tokenizer, template=options.template, key=options.key
    )
    if found:
        show(corpus_table(found))
    say(f"Wrote {folder / DATA} and {folder / CONFIG}. Check them, then run")
    for step in (f"prepare {folder}", f"train {folder}", f"report {folder / 'outputs'}"):
        say(f"  blendtitan {step}")


@command(
    "prepare",
    "turn the text of a run folder into shards and a file list",
    path("folder", "DIR", "run folder that init created"),
    number("--workers", "N", "processes (default: one per core)"),
)
def _prepare(options: Namespace) -> None:
    from blendtitan.prepare.mix import mix_table
    from blendtitan.start.folder import prepare_folder
    from blendtitan.tables import show

    show(mix_table(prepare_folder(options.folder, workers=options.workers)))
    say(f"The data is ready. To train: blendtitan train {options.folder}")


@command(
    "train",
    "train on this machine, with one or more processes",
    path("run", "RUN", "run folder that init created, or a TOML file"),
    number("--nproc", "N", "processes (default: one per accelerator, or one)"),
)
def _train(options: Namespace) -> None:
    from blendtitan.start.folder import config_path
    from blendtitan.start.train import check_run, training_command

    config = config_path(options.run)
    check_run(config)
    words, environment = training_command(config, options.overrides, nproc=options.nproc)
    os.execve(words[0], words, {**environment, **os.environ})
