"""From raw films to clips with poses: surveys, cuts, reports; no JAX."""
