"""How well a generated video moves as it should: its landmarks beside those of the true one."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.mediapipe import require_mediapipe, track_video
from anchor_jax.landmarks.tracks import ELBOWS, NOSE, SHOULDERS, WRISTS, Track, five_landmarks
from anchor_jax.video.read import probe
from anchor_jax.video.write import VideoWriter

_BODY = (NOSE, *SHOULDERS, *ELBOWS, *WRISTS)
_LIPS = (13, 14)  # the middles of the inner upper and lower lip
_LEAST_SIDE = 512  # pixels: smaller pictures are enlarged for the landmark model, which looks for fingers


class MotionComparison:
  """Finds the landmarks of generated and of true frames anew, with one model, and compares them; a context manager.

  Frames wait in lossless files, so memory grows by the landmarks alone (about 8 kB a frame). It needs the extra
  `landmarks`.
  """

  def __init__(self, fps: float):
    """Takes the frame rate.

    Raises:
      UserError: the landmark model is not installed.
    """
    require_mediapipe("frames")
    self._fps = fps

  def __enter__(self) -> "MotionComparison":
    self._folder = tempfile.TemporaryDirectory()
    self._paths = [Path(self._folder.name) / f"{name}.mkv" for name in ("made", "wanted")]
    self._writers = [VideoWriter(path, self._fps, lossless=True).__enter__() for path in self._paths]
    return self

  def __exit__(self, kind, error, traceback) -> None:
    self._folder.cleanup()

  def add(self, generated: UInt8[NdArray, "H W 3"], truth: UInt8[NdArray, "H W 3"]) -> None:
    """Takes in the next frame."""
    scale = max(1, -(-_LEAST_SIDE // min(truth.shape[:2])))
    for writer, frame in zip(self._writers, (generated, truth), strict=True):
      writer.write(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))

  def figures(self) -> dict[str, dict[str, float]]:
    """What `fidelity` returns, once all frames were added."""
    for writer in self._writers:
      writer.__exit__(None, None, None)
    made, wanted = (track_video(path, probe(path), progress="landmarks") for path in self._paths)
    return fidelity(made, wanted)


def fidelity(made: Track, wanted: Track) -> dict[str, dict[str, float]]:
  """Returns how far the points of one track are from those of another, by part: "body", "hands" and "face".

  Of each part "error" is the mean distance in the picture, in percent of the wanted shoulder width, over the points
  that are found in both and lie inside the wanted picture; "found" is the share of them that are found in the made
  one. The face also has "mouth", the correlation of how far the mouth is open. What is nowhere found is missing.

  Args:
    made, wanted: unmended tracks of videos of the same size and length.

  Raises:
    ValueError: the tracks have different numbers of frames.
  """
  if len(made) != len(wanted):
    raise ValueError(f"a track of {len(made)} frames beside one of {len(wanted)}")
  parts = {"body": (made.body[:, _BODY], wanted.body[:, _BODY]), "hands": (made.hands, wanted.hands)}
  parts["face"] = made.face, wanted.face
  report: dict[str, dict[str, float]] = {}
  for name, (points, true) in parts.items():
    inside = ((true[..., :2] >= 0) & (true[..., :2] <= (wanted.width, wanted.height))).all(axis=-1)  # not where NaN
    if not inside.any():
      continue
    both = inside & np.isfinite(points[..., 0])
    report[name] = {"found": float(both.sum() / inside.sum())}
    if both.any():
      distances = np.linalg.norm(points[both][:, :2] - true[both][:, :2], axis=-1)
      report[name]["error"] = float(100 * distances.mean() / wanted.shoulder_width)
  openings = np.stack([mouth_opening(track) for track in (made, wanted)])
  openings = openings[:, np.isfinite(openings).all(axis=0)]
  if openings.shape[1] > 1 and (openings.std(axis=1) > 0).all():
    report["face"]["mouth"] = float(np.corrcoef(openings)[0, 1])
  return report


def mouth_opening(track: Track) -> Float[NdArray, " T"]:
  """Returns the gap between the lips over the distance of the eyes; NaN where there is no face."""
  upper, lower = (track.face[:, point, :2] for point in _LIPS)
  eyes = five_landmarks(track.face)[:, :2]
  return np.linalg.norm(upper - lower, axis=-1) / np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1)
