"""File formats of others: diffusers folders in and out."""
