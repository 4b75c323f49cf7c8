"""Motions: the pose renders, face masks, landmarks and surface maps that a generated video follows; no JAX."""
