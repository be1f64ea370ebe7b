"""The life of a run: settings, training, checkpoints, the run folder and its report."""
