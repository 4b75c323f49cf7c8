"""What body measures and widths rest on: how much of each the film shows; the rest is a standard body's or a guess."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anchor_jax.core.shapes import Bool, NdArray
from anchor_jax.landmarks.tracks import EARS, ELBOWS, HIPS, SHOULDERS, WRISTS, Track

_JOINTS = {
  "shoulders": (SHOULDERS,), "neck": (EARS, SHOULDERS), "torso": (SHOULDERS, HIPS), "hips": (HIPS,),
  "upper_arm": (SHOULDERS, ELBOWS), "forearm": (ELBOWS, WRISTS),
}  # fmt: skip
_ARMS = ("upper_arm", "forearm")  # one side is enough
_LITTLE = 0.3
_TORSO = ("hips", "seat", "waist", "chest")  # of the heights in `widths.TORSO_HEIGHTS`, as far as they have a name
_WORDS = {
  "hips": "hips", "waist": "waist", "chest": "chest", "shoulder": "upper arms", "wrist": "forearms", "fingers": "hands",
  "neck": "neck",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What one body rests on; all shares are 0 to 1.

  Attributes:
    frames: number of frames that show the person.
    lengths: for each length of `BodyMeasures` the share of these frames in which the film shows both ends.
    widths: for each factor of `Widths` how far the film decides it, rather than the standard body; None if they were
      not fitted.
  """

  frames: int
  lengths: dict[str, float]
  widths: dict[str, float | tuple[float, ...]] | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns the shares by name, rounded to a hundredth."""
    rounded = lambda value: [round(v, 2) for v in value] if isinstance(value, tuple) else round(value, 2)
    by_name = lambda shares: shares and {name: rounded(value) for name, value in shares.items()}
    return {"frames": self.frames, "lengths": by_name(self.lengths), "widths": by_name(self.widths)}

  @classmethod
  def from_json(cls, values: Any) -> "Evidence":
    """Returns the evidence that `to_json` wrote.

    Raises:
      ValueError, KeyError or TypeError: the values are no such evidence.
    """
    share = lambda value: tuple(map(_share, value)) if isinstance(value, list) else _share(value)
    lengths = {str(name): _share(value) for name, value in dict(values["lengths"]).items()}
    widths = values["widths"]
    return cls(int(values["frames"]), lengths, widths and {name: share(value) for name, value in dict(widths).items()})


def _share(value: Any) -> float:
  if not (math.isfinite(share := float(value)) and 0 <= share <= 1):
    raise ValueError("share of evidence")
  return share


def evidence_of(track: Track, found: Bool[NdArray, " T"]) -> Evidence:
  """Returns how much a filled track shows of each length, over the frames that show the person."""
  body = track.body[found]
  inside = (body[..., :2] >= 0) & (body[..., :2] < (track.width, track.height))
  seen: Bool[NdArray, "F 33"] = inside[..., 0] & inside[..., 1]
  if track.shown is not None:
    seen = seen & (track.shown[found] == 1)
  count = int(found.sum())
  lengths: dict[str, float] = {}
  for name, ends in _JOINTS.items():
    both = seen[:, ends[0]] & seen[:, ends[-1]]
    lengths[name] = float((both.any(axis=1) if name in _ARMS else both.all(axis=1)).mean()) if count else 0.0
  hands = np.ones((len(track), 2), bool) if track.has_hands is None else track.has_hands
  lengths["palm"] = float(hands[found].any(axis=1).mean()) if count else 0.0
  lengths["face"] = float(track.has_face[found].mean()) if count else 0.0
  return Evidence(count, lengths)


def join_evidence(parts: Sequence[Evidence]) -> Evidence:
  """Returns the evidence of several films together; `widths` are left out."""
  frames = sum(part.frames for part in parts)
  names = {name for part in parts for name in part.lengths}
  share = lambda name: sum(part.frames * part.lengths.get(name, 0.0) for part in parts) / max(frames, 1)
  return Evidence(frames, {name: share(name) for name in sorted(names)})


def standard_parts(evidence: Evidence) -> list[str]:
  """Returns the names of the body's parts whose widths a film hardly shows, so that they are a standard body's."""
  if evidence.widths is None:
    return []
  shares = {name: share for name, share in evidence.widths.items() if not isinstance(share, tuple)}
  torso = evidence.widths.get("torso", ())
  if isinstance(torso, tuple):
    shares |= dict(zip(_TORSO, torso))
  return [words for name, words in _WORDS.items() if shares.get(name, 1.0) < _LITTLE]
