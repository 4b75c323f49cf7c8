"""Prepared folders: the records that models train on, and the loader; no JAX."""
