"""Lets films drive trained people, and counts what must not happen: invented hands, cut heads, jumps.

Example:
  python benchmarks/retargeting.py runs/anna/person runs/ben/person --drive anna.mp4 ben.mp4 --output=runs/pairs

Writes a video per pair, and sheet.jpg: one row a pair, generated frames beside the driver's. Prints per pair,
and in total, the number of frames with

- hands: a hand is drawn above the middle of the trunk, so it does not rest, and for half a second around that frame the
  landmark networks see none of that side in the driver, nor a wrist inside the picture;
- heads: the drawn head touches the upper edge of the picture;
- jumps: the picture changes four times as much as it does around that frame, and the driver's does not.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import anchor_jax as aj
from anchor_jax.body.charts import CHARTS, FINGERS, SIDES, chart
from anchor_jax.core.cli import say
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.evaluation.results import append_results
from anchor_jax.files.outputs import new_file
from anchor_jax.inference.motions import OpenMotion, open_motion
from anchor_jax.landmarks.model import LandmarkModel
from anchor_jax.landmarks.shown import LEAST_VISIBLE
from anchor_jax.landmarks.tracks import WRISTS
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.write import write_video

_COUNTED: tuple[str, ...] = ("frames", "hands", "heads", "jumps")
_HAND = 1 / 1000  # of the picture: smaller hands are not counted
_AROUND = 0.5  # seconds
_JUMP, _LEAST_JUMP = 4.0, 4.0  # times the median change around a frame; gray levels
_SHEET_HEIGHT, _SHEET_COLUMNS = 192, 4


class Seen(NamedTuple):
  """What the landmark networks see of a driver: left and right hand by frame, and the change from frame to frame."""

  frames: list[UInt8[NdArray, "H W 3"]]
  fps: float
  hands: Bool[NdArray, "T 2"]
  change: Float[NdArray, " T"]


def _watch(film: Path, count: int) -> Seen:
  """The first frames of a driver."""
  info = probe(film)
  frames = list(itertools.islice(read_frames(film), count))
  hands = np.zeros((len(frames), 2), bool)
  with LandmarkModel(film, masks=False) as model:
    for number, found in enumerate(model.find_all(frames)):
      height, width = frames[number].shape[:2]
      wrists = found.body[list(WRISTS)]
      inside = (wrists[:, :2] > 0).all(axis=1) & (wrists[:, :2] < (width, height)).all(axis=1)
      sure = inside if found.visible is None else inside & (found.visible[list(WRISTS)] >= LEAST_VISIBLE)
      hands[number] = np.isfinite(found.hands[:, 0, 0]) | sure
  radius = round(_AROUND * info.fps)
  around = np.stack([np.convolve(side, np.ones(2 * radius + 1), "same") > 0 for side in hands.T], axis=1)
  return Seen(frames, info.fps, around, _changes(frames))


def _changes(frames: Sequence[UInt8[NdArray, "H W 3"]]) -> Float[NdArray, " T"]:
  """Mean change of each frame from the one before, in gray levels; 0 for the first."""
  small = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) for frame in frames]
  return np.array([0.0, *(np.abs(b - a).mean() for a, b in itertools.pairwise(small))])


def _jumps(change: Float[NdArray, " T"], radius: int) -> Bool[NdArray, " T"]:
  """Whether each frame changes much more than the median of those around it."""
  padded = np.pad(change, radius, mode="reflect")
  median = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1), axis=1)
  return (change > _LEAST_JUMP) & (change > _JUMP * np.maximum(median, 0.25))


def _raised_hands(surface: UInt8[NdArray, "H W 3"]) -> list[bool]:
  """Whether a surface map shows a hand of the left and of the right side above the middle of the trunk."""
  rows = np.arange(len(surface))[:, None]
  shows = lambda names, side=None: np.isin(surface[..., 0], [chart(name, side) for name in names])
  middle = (rows * (trunk := shows(("chest", "belly", "hips")))).sum() / max(trunk.sum(), 1)
  hands = [shows(("palm", "hand_back", *FINGERS), side) for side in SIDES]
  return [bool(hand.mean() >= _HAND and (rows * hand).sum() / hand.sum() < middle) for hand in hands]


def _drive(
  person: Path, opened: OpenMotion, seen: Seen, output: Path
) -> tuple[dict[str, int], list[UInt8[NdArray, "H W 3"]]]:
  """Generates a pair; returns its counts and the frames."""
  loaded = aj.load(person, head=False)
  motion = opened.read(loaded.size, loaded.measures).first(len(seen.frames))
  surfaces = [frame.surface for frame in motion.frames(0)]
  frames = list(loaded.animate(motion))
  write_video(output, frames, motion.fps)
  head = [number for number, one in enumerate(CHARTS) if one.name in ("cranium", "face")]
  counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
  jumps = _jumps(_changes(frames), round(_AROUND * seen.fps)) & ~_jumps(seen.change, round(_AROUND * seen.fps))
  for surface, hands, jump in zip(surfaces, seen.hands, jumps, strict=False):
    assert surface is not None, "films have surface maps"
    counts["frames"] += 1
    counts["hands"] += any(drawn and not shown for drawn, shown in zip(_raised_hands(surface), hands, strict=True))
    counts["heads"] += bool(np.isin(surface[0, :, 0], head).any())
    counts["jumps"] += bool(jump)
  return counts, frames


def _row(frames: Sequence[UInt8[NdArray, "H W 3"]], driver: Sequence[UInt8[NdArray, "H W 3"]]) -> NdArray:
  """A row of the sheet."""
  scale = lambda picture, width: cv2.resize(picture, (width, _SHEET_HEIGHT), interpolation=cv2.INTER_AREA)
  cells = []
  for place in np.linspace(0.1, 0.9, _SHEET_COLUMNS):
    for film in (frames, driver):
      picture = film[round(place * (len(film) - 1))]
      width = round(picture.shape[1] * _SHEET_HEIGHT / picture.shape[0])
      cells.append(np.pad(scale(picture, width)[:, :300], ((0, 4), (0, max(4, 200 - width)), (0, 0))))
  return np.concatenate(cells, axis=1)


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("people", nargs="+", type=Path, help="workdirs of trained people")
  parser.add_argument("--drive", nargs="+", type=Path, required=True, help="films")
  parser.add_argument("--frames", type=int, default=75, help="of each film, from its start")
  parser.add_argument("--output", type=Path, required=True, help="folder")
  parser.add_argument("--record", action="store_true", help="append the totals to results/")
  options = parser.parse_args()
  options.output.mkdir(parents=True, exist_ok=True)
  total: dict[str, int] = dict.fromkeys(_COUNTED, 0)
  rows = []
  for film in options.drive:
    seen, opened = _watch(film, options.frames), open_motion(film)
    for person in options.people:
      name = f"{person.parent.name}-by-{film.stem}"
      counts, frames = _drive(person, opened, seen, options.output / f"{name}.mp4")
      say(f"{name}: {counts}", flush=True)
      total = {key: total[key] + count for key, count in counts.items()}
      rows.append(_row(frames, seen.frames))
  width = max(row.shape[1] for row in rows)
  sheet = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
  with new_file(options.output / "sheet.jpg") as path:
    path.write_bytes(cv2.imencode(".jpg", sheet[..., ::-1])[1].tobytes())
  say(f"total of {len(rows)} pairs: {total}")
  if options.record:
    what = f"retargeting/{len(options.people)}-people-{len(options.drive)}-films"
    append_results({f"{what}/{key}": (float(count), "frames") for key, count in total.items()}, note="75 frames a pair")


if __name__ == "__main__":
  main()
