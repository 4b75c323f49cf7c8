"""From landmarks to pose renders and surface maps: solids, rasterizer, charts, fitting; no JAX."""
