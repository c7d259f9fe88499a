"""``blendtitan audit``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say, say_json

SUMMARY = "prove that a run's checkpoints go on one from another"

MANUAL = """\
Prove from the states in a run's checkpoints that each goes on where the one before stopped: the
same seed, split and flags; the same history of chapters, segments and global batch sizes; the same
samples before it, by their digest; chapters that begin where every row of documents stood; as many
samples consumed as its step says.

Only the states are read, neither data nor weights, and nothing in a checkpoint is executed. So it
takes seconds for any run, of any number of ranks, on any machine.

With --against, two runs are compared: up to which slot they read the same samples, and what
differs from there on.

RUN_FOLDER is a run's job.dump_folder, or its folder of checkpoints. Incomplete checkpoints and
those without a state (the last one, with checkpoint.last_save_model_only) are listed and passed
over. Where one is not proved, the exit status is 1.
"""

EXAMPLE = """\
example:
  blendtitan audit outputs
  blendtitan audit outputs/checkpoint --against ../other/outputs/checkpoint --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add(
        "run_folder",
        metavar="RUN_FOLDER",
        type=local_path,
        help="folder of a run, or its checkpoints",
    )
    add("--against", metavar="FOLDER", type=local_path, help="another run to compare it with")
    add("--json", action="store_true", help="print JSON in place of a table")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.runs.audit import audit_run, compare_runs
    from blendtitan.runs.audit_report import audit_json, audit_table, check_proved
    from blendtitan.tables import show

    audited = audit_run(options.run_folder)
    parting = None
    if options.against is not None:
        parting = compare_runs(audited, audit_run(options.against))
    if options.json:
        say_json(audit_json(audited, parting))
    else:
        show(audit_table(audited))
        if parting is not None and parting.slot is None:
            say("Both runs read the same samples, as far as both went.")
        elif parting is not None:
            say(f"The runs read the same samples up to slot {parting.slot:,}; from there on:")
            say(*(f"  {reason}" for reason in parting.reasons))
    check_proved(audited)
