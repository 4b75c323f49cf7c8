"""The networks, in Flax Linen: pure functions of their parameters."""
