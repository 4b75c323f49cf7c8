"""Prepared folders: their records, builder and loader; no JAX."""
