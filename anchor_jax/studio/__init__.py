"""Procedural people who present in front of a camera, with poses, masks, landmarks and surface maps; NumPy, no model.

  identity, motion = make_identity(7), make_motion(11)          # independent seeds
  picture = render(identity, motion, time_s=1.5, size=128)      # a StudioFrame
  for picture in render_clip(identity, motion, times, 128): ... # in order, in several processes

Equal arguments give equal pixels, in any process and on any machine.

Coordinate systems:
  world    meters; x to the picture's right, y up, z to the viewer; origin between the shoulders of a person at rest
  picture  pixels; x right, y down, z to the viewer; the center of the first pixel is (0.5, 0.5)
  head     (u, v, w), right, up, out of the face, in half head heights from the middle of the head: v is -1 at the chin
           and 1 at the crown
  torso    (x, y, z), right, up, forward, in meters from the middle of the shoulder line
  arm      (outwards, up, forward), mirrored for the two arms, in arm lengths (upper arm and forearm); in motion.py only

Left and right are the picture's, unless a docstring says the person's. Times are in seconds, angles in radians, colors
RGB in [0, 1] until the frame is rounded to uint8.
"""

from anchor_jax.studio.clips import render_clip, render_people
from anchor_jax.studio.identity import Identity, make_identity
from anchor_jax.studio.motion import Performance, make_motion
from anchor_jax.studio.renderer import StudioFrame, render
from anchor_jax.studio.video import write_studio_video

__all__ = [
  "Identity",
  "Performance",
  "StudioFrame",
  "make_identity",
  "make_motion",
  "render",
  "render_clip",
  "render_people",
  "write_studio_video",
]
