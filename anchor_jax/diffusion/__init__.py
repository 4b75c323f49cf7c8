"""Schedules, solvers, windows, the sampler and the loss: pure functions, to which a network is an argument."""
