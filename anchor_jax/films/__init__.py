"""From films as they come to clips of poses: surveys, cuts, reports; no JAX."""
