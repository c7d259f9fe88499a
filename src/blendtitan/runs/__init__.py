"""What looks at a run: its plan, the samples of any step, its checkpoints, a report."""
