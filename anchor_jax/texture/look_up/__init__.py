"""Looks a texture up for a surface map, on the device: for each pixel, what atlas, key frames and plate show of it."""
