"""The trainer of all parts: data, loss, step, loop, checkpoints, reports."""
