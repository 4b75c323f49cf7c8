"""Typed, frozen settings of runs and networks, and where config files are found; no JAX."""
