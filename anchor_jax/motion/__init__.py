"""Motions: the pose renders, masks and landmarks that a generated video follows; no JAX."""
