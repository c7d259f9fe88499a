"""Inspection of a run: its plan, the samples of any step, its checkpoints, a report."""
