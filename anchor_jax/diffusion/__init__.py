"""Schedules, solvers, windows, samplers and losses: pure functions that know no network."""
