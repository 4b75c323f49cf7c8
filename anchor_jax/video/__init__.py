"""Video and picture files: reading, writing, timing, color; nothing here knows about people; no JAX."""
