"""What a film tells of a person's look: room, texture of her surface, key frames; numpy, no JAX.

  film -> gather.py -> Gathered -> Appearance -> stored.py (a file), picture.py (something to look at)

A surface map gives for each pixel of a pose render the chart (part of the surface) and the position on it, u and v.
The same skin has the same coordinates in every pose, so what one frame shows can be looked up for another pose. The
lookup runs on the device, see `models/conditions.py`.
"""
