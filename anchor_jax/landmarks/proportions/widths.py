"""Widths: factors on the radii of a standard body's solids, stored with the person's body measures."""

import dataclasses
import math
from typing import Any

# Heights of the torso factors above the root of the neck, meters of an average body: from the hips to the collar.
TORSO_HEIGHTS = (-0.55, -0.40, -0.26, -0.14, -0.05, 0.012, 0.075)
LIMITS = (0.7, 1.7)  # of fitted factors
# Of those of the torso: beside the arms it ends at the outer edge of the shoulders.
TORSO_LIMITS = (1.7, 1.7, 1.6, 1.45, 1.35, 1.5, 1.5)
_STORED = (0.1, 10.0)  # a stored factor outside this range is damaged
_TORSO = len(TORSO_HEIGHTS)


@dataclasses.dataclass(frozen=True)
class Widths:
  """Factors on the radii of the solids of `body.pose.PoseRenderer`, clothes and hair included; default: a bare body.

  Attributes:
    torso: at `TORSO_HEIGHTS`, linear between them, constant below.
    slope: the slope of the shoulders at the neck.
    shoulder, elbow, wrist: both arms at these joints, linear between them.
    fingers: fingers and palms.
    neck: the neck.
    jaw: the head's lower half behind the face.
    skull: its upper half, across and (with hair) upwards.
    hair: hair that falls behind the face: width in face widths, and reach below the head's middle in face heights; None
      without such hair.
  """

  torso: tuple[float, ...] = (1.0,) * _TORSO
  slope: float = 1.0
  shoulder: float = 1.0
  elbow: float = 1.0
  wrist: float = 1.0
  fingers: float = 1.0
  neck: float = 1.0
  jaw: float = 1.0
  skull: tuple[float, float] = (1.0, 1.0)
  hair: tuple[float, float] | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns the factors by name, rounded to a thousandth."""
    rounded = lambda value: [round(v, 3) for v in value] if isinstance(value, tuple) else value and round(value, 3)
    return {name: rounded(value) for name, value in dataclasses.asdict(self).items()}

  @classmethod
  def from_json(cls, values: Any) -> "Widths":
    """Returns the factors that `to_json` wrote.

    Raises:
      ValueError, KeyError or TypeError: the values are no such factors.
    """
    read: dict[str, Any] = {}
    for name, standard in dataclasses.asdict(cls()).items():
      stored: Any = values[name]
      if name == "hair" and stored is None:
        continue
      count = {"torso": _TORSO, "skull": 2, "hair": 2}.get(name)
      numbers = [float(number) for number in ([stored] if count is None else stored)]
      if len(numbers) != (count or 1) or not all(_STORED[0] <= n <= _STORED[1] and math.isfinite(n) for n in numbers):
        raise ValueError(f"width {name}")
      read[name] = numbers[0] if isinstance(standard, float) else tuple(numbers)
    return cls(**read)
