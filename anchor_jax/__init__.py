"""Anchor videos of a person from one minute of film: Make-Your-Anchor (CVPR 2024) in JAX/Flax."""

__version__ = "0.2.0"
