"""Textures: what a film shows of a person (atlas, key frames, background plate), and the look-up for target poses."""
