"""State, step, optimiser, checkpoints and reports of the one trainer."""
