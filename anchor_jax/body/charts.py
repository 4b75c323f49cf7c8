"""Surface maps: which part of the body each pixel of a pose render shows, and where on that part.

A surface map is uint8 [H W 3] = (chart, u, v). `chart` is an index into `CHARTS`, 0 for no body. u and v are
floor(256 * x) of a position x in [0, 1) on the chart. They are attached to the skin: a point of the skin has the same
values in every pose. Maps hold numbers, not colors: crop and resize them by picking pixels, never by interpolation.
"""

from typing import NamedTuple

import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8

SIDES = ("left", "right")  # the person's own
FINGERS = ("thumb", "index", "middle", "ring", "little")


class Chart(NamedTuple):
  """A part of the body's surface with its own coordinates.

  Attributes:
    name: such as "chest" or "left_palm"; left and right are the person's own.
    wraps: whether u is an angle, so that 255 and 0 are neighbors.
  """

  name: str
  wraps: bool = False


_PAIRED = (
  *(Chart(name) for name in ("eye", "upper_lid", "lower_lid", "palm", "hand_back")),
  *(Chart(name, True) for name in ("ear", "upper_arm", "forearm", *FINGERS)),
)
CHARTS: tuple[Chart, ...] = (
  *(
    Chart(name)
    for name in ("none", "chest", "belly", "hips", "torso_back", "face", "nose", "upper_lip", "lower_lip", "mouth")
  ),
  Chart("neck", True),
  Chart("cranium", True),
  *(Chart(f"{side}_{name}", wraps) for side in SIDES for name, wraps in _PAIRED),
)
_NUMBERS = {chart.name: number for number, chart in enumerate(CHARTS)}

# v along a finger: at its root, its two joints and the end of the last bone; the cap of the tip ends at 1.
FINGER_JOINTS = (0.0, 0.44, 0.72, 0.92)
THUMB_JOINTS = (0.0, 0.38, 0.68, 0.92)


def chart(name: str, side: str | None = None) -> int:
  """Returns the number of a chart; paired ones need `side`, the person's own "left" or "right"."""
  return _NUMBERS[f"{side}_{name}" if side else name]


def _region(*names: str) -> UInt8[NdArray, " N"]:
  """A table from chart to 255 for the named parts of both sides and 0 for all others."""
  numbers = {number for name, number in _NUMBERS.items() if name in names or name.partition("_")[2] in names}
  return np.array([255 if number in numbers else 0 for number in range(256)], np.uint8)


_HANDS = _region("palm", "hand_back", *FINGERS)
_FACE = _region("face", "nose", "mouth", "upper_lip", "lower_lip", "eye", "upper_lid", "lower_lid")

# Whether each chart belongs to face or hands, which are small and attract the most attention.
DETAILS = (_HANDS | _FACE) > 0


def hands_mask(surface: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W"]:
  """Returns 255 where a surface map shows a hand (palms, backs, fingers), 0 elsewhere."""
  return _HANDS[surface[..., 0]]


def face_mask(surface: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W"]:
  """Returns 255 where a surface map shows the face (skin, nose, lips, mouth, eyes, lids), 0 elsewhere."""
  return _FACE[surface[..., 0]]
