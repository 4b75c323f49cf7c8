"""How faithfully a generated video moves: its landmarks compared with the true video's."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.model import track_video
from anchor_jax.landmarks.networks.files import require_landmarks
from anchor_jax.landmarks.tracks import ELBOWS, NOSE, SHOULDERS, WRISTS, Track, five_landmarks
from anchor_jax.video.read import probe
from anchor_jax.video.write import VideoWriter

_BODY = (NOSE, *SHOULDERS, *ELBOWS, *WRISTS)
_LIPS = (13, 14)  # centers of the inner upper and lower lip
_LEAST_SIDE = 512  # pixels: smaller frames are enlarged so that the landmark model finds fingers


class MotionComparison:
  """Tracks generated and true frames with the same landmark model and compares them; a context manager.

  Frames are buffered in lossless files, so memory grows by the landmarks alone (about 8 kB a frame). Needs the extra
  `landmarks`.
  """

  def __init__(self, fps: float, model: str = "mediapipe"):
    """Checks that the landmark model is there.

    Args:
      fps: frame rate of both videos.
      model: the landmark model, one of `LANDMARK_MODELS`.

    Raises:
      UserError: the landmark model is not installed, or has an unknown name.
    """
    require_landmarks("frames", model)
    self._fps, self.model = fps, model

  def __enter__(self) -> "MotionComparison":
    self._folder = tempfile.TemporaryDirectory()
    self._paths = [Path(self._folder.name) / f"{name}.mkv" for name in ("generated", "true")]
    self._writers = [VideoWriter(path, self._fps, lossless=True).__enter__() for path in self._paths]
    return self

  def __exit__(self, kind, error, traceback) -> None:
    self._folder.cleanup()

  def add(self, generated: UInt8[NdArray, "H W 3"], truth: UInt8[NdArray, "H W 3"]) -> None:
    """Adds the next frame."""
    scale = max(1, -(-_LEAST_SIDE // min(truth.shape[:2])))
    for writer, frame in zip(self._writers, (generated, truth), strict=True):
      writer.write(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))

  def figures(self) -> dict[str, dict[str, float]]:
    """Returns what `compare_tracks` does; call it after the last frame."""
    for writer in self._writers:
      writer.__exit__(None, None, None)
    options = {"masks": False, "model": self.model, "progress": "landmarks"}
    generated, true = (track_video(path, probe(path), **options) for path in self._paths)
    return compare_tracks(generated, true)


def compare_tracks(generated: Track, true: Track) -> dict[str, dict[str, float]]:
  """Returns how far a track's points are from the true ones, by part: "body", "hands" and "face".

  "error" is the mean distance in the picture plane, in percent of the true shoulder width, over points that both
  tracks have and that lie inside the true picture; "found" is the share of the true points that the generated track
  has. The face also has "mouth", the correlation of mouth opening. Parts that were never found are missing.

  Args:
    generated, true: raw tracks (gaps not filled) of videos of the same size and length.

  Raises:
    ValueError: the tracks have different numbers of frames.
  """
  if len(generated) != len(true):
    raise ValueError(f"tracks of different lengths: {len(generated)} and {len(true)} frames")
  parts = {"body": (generated.body[:, _BODY], true.body[:, _BODY]), "hands": (generated.hands, true.hands)}
  parts["face"] = generated.face, true.face
  report: dict[str, dict[str, float]] = {}
  for name, (points, truth) in parts.items():
    inside = ((truth[..., :2] >= 0) & (truth[..., :2] <= (true.width, true.height))).all(axis=-1)  # False for NaN
    if not inside.any():
      continue
    both = inside & np.isfinite(points[..., 0])
    report[name] = {"found": float(both.sum() / inside.sum())}
    if both.any():
      distances = np.linalg.norm(points[both][:, :2] - truth[both][:, :2], axis=-1)
      report[name]["error"] = float(100 * distances.mean() / true.shoulder_width)
  openings = np.stack([mouth_opening(track) for track in (generated, true)])
  openings = openings[:, np.isfinite(openings).all(axis=0)]
  if openings.shape[1] > 1 and (openings.std(axis=1) > 0).all():
    report["face"]["mouth"] = float(np.corrcoef(openings)[0, 1])
  return report


def mouth_opening(track: Track) -> Float[NdArray, " T"]:
  """Returns the gap between the lips divided by the distance between the eyes; NaN for frames without a face."""
  upper, lower = (track.face[:, point, :2] for point in _LIPS)
  eyes = five_landmarks(track.face)[:, :2]
  return np.linalg.norm(upper - lower, axis=-1) / np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1)
