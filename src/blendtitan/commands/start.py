"""Commands from text to a training run: init, prepare and train."""

import shlex
from argparse import Namespace

from blendtitan.commands.arguments import argument, command, number, path
from blendtitan.commands.text import MAX_EPOCHS, TEXTS, TXT, texts_config
from blendtitan.terminal import complain, say


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
        action="extend",
        required=True,
    ),
    argument(
        "--tokenizer",
        "SentencePiece .model, Hugging Face tokenizer.json, a folder with one, a URL of one, or a "
        "name ORG/NAME in the local Hugging Face cache",
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
    argument(
        "--scheduler",
        "also write a job script that trains on several nodes",
        choices=("slurm", "pbs"),
    ),
    argument(
        "--key",
        "field or column that holds the text (default: text). CORPUS=NAME applies to one corpus",
        metavar="NAME",
        action="append",
    ),
    TXT,
)
def _init(options: Namespace) -> None:
    from blendtitan.runs.run_folder import CONFIG, DATA
    from blendtitan.start.folder import init_folder
    from blendtitan.start.found import corpus_table, shard_table
    from blendtitan.storage.list_forms import nested_corpora
    from blendtitan.tables import show

    folder = options.folder
    found = init_folder(
        folder,
        options.data,
        options.tokenizer,
        template=options.template,
        keys=options.key or ["text"],
        txt=options.txt or "file",
        scheduler=options.scheduler,
    )
    if found.corpora:
        show(corpus_table(found.corpora))
    if found.shards:
        show(shard_table(found.shards))
        for warning in filter(None, (nested_corpora(*each) for each in found.shards.items())):
            complain(warning)
    if found.unvalidated:
        why = (
            "Each .txt file is one document, and a shard of one document has none to set aside, so"
        )
        remedy = f'set txt = "line" in {folder / DATA}, or name held-out data in [[validation.set]]'
        if found.validates:
            names = ", ".join(found.unvalidated)
            say(f"{why} there is no validation data of {names}. To have some, {remedy}.")
        else:
            enable = f"then set validation.enable = true in {folder / CONFIG}"
            say(f"{why} validation is off. To validate, {remedy}; {enable}.")
    say(f"Wrote {folder / DATA} and {folder / CONFIG}. Check them, then run")
    quoted = shlex.quote(str(folder))
    for step in ("prepare", "train", "report"):
        say(f"  blendtitan {step} {quoted}")
    if options.scheduler:
        submit = {"slurm": "sbatch {0}/slurm.sh {0}", "pbs": "qsub -v ARGUMENTS={0} {0}/pbs.sh"}
        say(f"On several nodes: {submit[options.scheduler].format(quoted)}")


@command(
    "prepare",
    "turn the text of a run folder into shards and a file list",
    path("folder", "DIR", "run folder that init created"),
    number("--workers", "N", "processes (default: one per core)"),
    *TEXTS,
    MAX_EPOCHS,
)
def _prepare(options: Namespace) -> None:
    from blendtitan.prepare.mix import mix_table
    from blendtitan.runs.run_folder import CONFIG, DATA, two_lists, two_tokenizers
    from blendtitan.start.check import check_shards_of
    from blendtitan.start.folder import prepare_folder, read_data_config
    from blendtitan.tables import show

    corpora = prepare_folder(
        options.folder,
        workers=options.workers,
        txt=options.txt,
        configure=texts_config(options),
        max_epochs=options.max_epochs,
    )
    show(mix_table(corpora))
    config = options.folder / CONFIG
    advice = [*filter(None, (two_tokenizers(options.folder / DATA, config), two_lists(config)))]
    for each in advice:
        complain(each)
    if not advice and read_data_config(options.folder / DATA).shards:
        check_shards_of(config)
    then = "To train after that change" if advice else "To train"
    say(f"The data is ready. {then}: blendtitan train {shlex.quote(str(options.folder))}")


@command(
    "train",
    "train on this machine, with one or more processes",
    path("run", "RUN", "run folder that init created, or a TOML file"),
    number("--nproc", "N", "processes on this machine (default: one per accelerator, or one)"),
    number("--nnodes", "N", "machines, each of which runs this command", default=1),
    argument(
        "--rendezvous",
        "where several machines meet: a free port on the first one",
        metavar="HOST:PORT",
    ),
    argument(
        "--job-id",
        "name of the run on several machines (default: the id of the Slurm or PBS job)",
        metavar="TEXT",
    ),
)
def _train(options: Namespace) -> None:
    from blendtitan.start.check import check_run
    from blendtitan.start.train import Ranks, config_path, train

    config = config_path(options.run)
    ranks = Ranks.chosen(
        nproc=options.nproc,
        nnodes=options.nnodes,
        rendezvous=options.rendezvous,
        job_id=options.job_id,
    )
    finished = check_run(
        config,
        options.overrides,
        world_size=ranks.nproc * ranks.nnodes,
        reads_data=ranks.nnodes == 1,
    )
    if finished:
        say(finished)
    else:
        train(config, options.overrides, ranks)
