"""Procedural people: the data source that comes with the package; numpy, no model."""
