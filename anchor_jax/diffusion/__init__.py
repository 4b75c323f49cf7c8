"""Schedules, solvers, windows, the sampler and the loss: pure functions that take a network as an argument."""
