"""Video and image files: reading, writing, timing, color. Nothing here knows about people; no JAX."""
