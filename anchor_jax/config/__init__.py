"""Typed, frozen settings of runs and networks, and the search for config files; no JAX."""
