"""Points of a person over time: detection, tracks, body measures, retargeting, sidecars; no JAX."""
