"""Prepared folders: the records that models train on, their builder, and the loader; no JAX."""
