"""The report page: figures, a side-by-side video of pose, generated and truth, curves over time, the worst frames."""

import heapq
import html
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anchor_jax.core.html import key, page, picture, video
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import head_of
from anchor_jax.video.write import VideoWriter

WORST = 10  # frames listed
_COLORS = {"person": "#2f6fb3", "face": "#c98a2b", "hands": "#3a8f5c", "whole": "#7d5ba6"}
_CURVES = {
  "psnr": "PSNR, dB: higher is better",
  "ssim": "SSIM: higher is better",
  "flicker": "Flicker, gray levels: lower is better",
}
_COLUMNS = {
  "psnr": ("PSNR, dB", ".2f"),
  "ssim": ("SSIM", ".3f"),
  "flicker": ("flicker", ".2f"),
  "flow_error": ("flow error", ".2f"),
  "flow_error_of_truth": ("of the truth", ".2f"),
  "sharpness": ("sharpness", ".2f"),
}
_NETWORK_COLUMNS = {  # present if measured
  "lpips": ("LPIPS", ".4f"),
  "fid": ("FID", ".2f"),
  "fvd": ("FVD", ".2f"),
  "clip": ("CLIP", ".4f"),
  "identity": ("identity", ".3f"),
}
_POINTS = 600  # at most, per curve; longer videos are averaged down to it
_WIDTH, _HEIGHT = 600, 140  # of a chart
_LARGEST = 768  # pixels: width of the video and of a strip of pictures
_MOST_SECONDS = 60  # of video on the page
_GAIN = 4  # amplification of the difference picture
_TITLE = "Generated and true frames"
_STYLE = """
video { width: 100%; max-width: 60rem; }
table { margin: 1rem 0; } td { white-space: nowrap; }
svg { width: 100%; display: block; }
svg text { font-size: 11px; fill: #5b6470; }
"""


class ComparisonPage:
  """Collects a comparison frame by frame; a context manager. Memory: the worst frames and three numbers per frame."""

  def __init__(self, fps: float, video_path: Path | None = None):
    """Takes the frame rate; `video_path` also saves the page's video as a file."""
    self._fps, self._worst, self._count = fps, [], 0
    self._path, self._open = video_path, False
    self._curves: dict[str, dict[str, list[float]]] = {}

  def __enter__(self) -> "ComparisonPage":
    self._folder = tempfile.TemporaryDirectory()
    self._path = self._path or Path(self._folder.name) / "side_by_side.mp4"
    self._video = VideoWriter(self._path, self._fps, metadata={"comment": "pose, generated (synthetic), truth"})
    self._video.__enter__()
    self._open = True
    return self

  def __exit__(self, kind, error, traceback) -> None:
    with self._folder:
      self._close(kind, error, traceback)

  def _close(self, kind=None, error=None, traceback=None) -> None:
    if self._open:
      self._open = False
      self._video.__exit__(kind, error, traceback)

  def add(
    self,
    generated: UInt8[NdArray, "H W 3"],
    record: Mapping[str, NdArray],
    figures: Mapping[str, Mapping[str, float]],
  ) -> None:
    """Adds the next frame.

    Args:
      generated: the frame.
      record: its "pose" and true "frame".
      figures: of this frame alone, by region; undefined ones are missing.
    """
    if self._count < _MOST_SECONDS * self._fps:
      self._video.write(_fitted([record["pose"], generated, record["frame"]]))
    for region, of_region in figures.items():
      curves = self._curves.setdefault(region, {name: [] for name in _CURVES})
      for name, curve in curves.items():
        curve += [np.nan] * (self._count - len(curve)) + [of_region.get(name, np.nan)]
    error = -figures.get("person", {}).get("psnr", np.inf)
    if np.isfinite(error) and (len(self._worst) < WORST or error > self._worst[0][0]):
      strip = _encoded(_fitted([generated, record["frame"], _difference(generated, record["frame"])]))
      heapq.heappush(self._worst, (error, self._count, strip))
      if len(self._worst) > WORST:
        heapq.heappop(self._worst)
    self._count += 1

  def worst(self) -> list[int]:
    """Returns the numbers of the frames with the lowest PSNR of the person, worst first."""
    return [number for _, number, _ in sorted(self._worst, reverse=True)]

  def text(self, report: Mapping[str, Any]) -> str:
    """Returns the page as HTML; call it after the last frame, with what `evaluate` returned."""
    self._close()
    assert self._path is not None
    video_bytes = self._path.read_bytes()
    seconds = self._count / self._fps
    cut = f" The first {_MOST_SECONDS} s:" if seconds > _MOST_SECONDS else ""
    curves = "\n".join(
      f"<h3>{label}</h3>{_chart({region: known[name] for region, known in self._curves.items()}, self._fps)}"
      for name, label in _CURVES.items()
    )
    legend = " ".join(f"{key(_COLORS[region])}{region} " for region in self._curves)
    worst = "\n".join(
      f"<tr><td>{number}</td><td>{number / self._fps:.2f} s</td><td>{-error:.2f} dB</td>"
      f"<td>{picture(strip, 'jpeg', f'frame {number}')}</td></tr>"
      for error, number, strip in sorted(self._worst, reverse=True)
    )
    body = f"""<p>{self._count} frames, {seconds:.1f} s.{cut}</p>
{video(video_bytes)}
<p>Pose, generated, truth.</p>
<h2>Figures</h2>
{_tables(report)}
<h2>Over time</h2>
<p>{legend}</p>
{curves}
<h2>Worst frames</h2>
<p>By the person's PSNR. Generated, truth, difference times {_GAIN}.</p>
<table><thead><tr><th>frame</th><th>at</th><th>PSNR</th><th></th></tr></thead><tbody>
{worst}
</tbody></table>"""
    return page(_TITLE, body, _STYLE)


def is_page(path: Path) -> bool:
  """Whether a file is a page of `evaluate`; other files are never overwritten with one."""
  return f"<title>{_TITLE}</title>".encode() in head_of(path)


def _fitted(pictures: list[NdArray]) -> UInt8[NdArray, "H W 3"]:
  """Pictures side by side; small ones are enlarged by an integer factor, large ones shrunk."""
  row = np.concatenate(pictures, axis=1)
  scale = _LARGEST / row.shape[1]
  scale = max(1, round(scale)) if scale > 1 else scale
  interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
  return row if scale == 1 else cv2.resize(row, None, fx=scale, fy=scale, interpolation=interpolation)


def _difference(generated: NdArray, truth: NdArray) -> UInt8[NdArray, "H W 3"]:
  return np.clip(_GAIN * np.abs(generated.astype(np.int16) - truth), 0, 255).astype(np.uint8)


def _encoded(image: UInt8[NdArray, "H W 3"]) -> bytes:
  """The picture as a JPEG file."""
  return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _tables(report: Mapping[str, Any]) -> str:
  """Advice, a table per region, and how network measures were taken."""
  parts = [f'<p class="note">{html.escape(line)}</p>' for line in report.get("advice", ())]
  for region in _COLORS:
    if region not in report:
      continue
    rows_of = report[region].values()
    columns = _COLUMNS | {key: form for key, form in _NETWORK_COLUMNS.items() if any(key in row for row in rows_of)}
    header = "".join(f"<th>{label}</th>" for label, _ in columns.values())
    rows = "".join(
      f"<tr><td>{html.escape(name.replace('_', ' '))}</td>"
      + "".join(
        f"<td>{row[figure]:{form}}</td>" if figure in row else "<td></td>" for figure, (_, form) in columns.items()
      )
      + "</tr>"
      for name, row in report[region].items()
    )
    parts.append(f"<table><thead><tr><th>{region}</th>{header}</tr></thead><tbody>{rows}</tbody></table>")
  for name, facts in report.get("measures", {}).items():
    text = ", ".join(f"{fact.replace('_', ' ')} {value}" for fact, value in facts.items())
    parts.append(f"<p>{_NETWORK_COLUMNS[name][0]}: {html.escape(text)}.</p>")
  return "\n".join(parts)


def _chart(curves: Mapping[str, list[float]], fps: float) -> str:
  """An SVG chart of curves over seconds; infinite and missing values leave gaps."""
  seconds = max(map(len, curves.values()), default=0) / fps
  drawn = {name: _binned(np.asarray(values, np.float64)) for name, values in curves.items()}
  known = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in drawn.values())])
  if not known.size:
    return "<p>No data.</p>"
  low, high = known.min(), known.max()
  span = high - low or 1.0
  count = max(map(len, drawn.values()))
  lines = []
  for name, values in drawn.items():
    x = np.arange(len(values)) * _WIDTH / max(count - 1, 1)
    y = _HEIGHT - (values - low) / span * _HEIGHT
    ends = np.flatnonzero(np.diff(np.concatenate([[False], np.isfinite(values), [False]]).astype(np.int8)))
    for first, last in ends.reshape(-1, 2):
      points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[first:last], y[first:last], strict=True))
      lines.append(f'<polyline fill="none" stroke="{_COLORS[name]}" stroke-width="1.2" points="{points}"></polyline>')
  return (
    f'<svg viewBox="-48 -10 {_WIDTH + 60} {_HEIGHT + 30}" role="img">'
    f'<text x="-4" y="4" text-anchor="end">{high:.4g}</text>'
    f'<text x="-4" y="{_HEIGHT + 4}" text-anchor="end">{low:.4g}</text><text x="0" y="{_HEIGHT + 18}">0 s</text>'
    f'<text x="{_WIDTH}" y="{_HEIGHT + 18}" text-anchor="end">{seconds:.1f} s</text>{"".join(lines)}</svg>'
  )


def _binned(values: NdArray) -> NdArray:
  """The values averaged over neighbors, so that at most `_POINTS` are left; NaNs are skipped."""
  side = -(-len(values) // _POINTS)
  if side <= 1:
    return values
  bins = np.pad(values, (0, -len(values) % side), constant_values=np.nan).reshape(-1, side)
  known = np.isfinite(bins)
  counts = known.sum(axis=1)
  return np.where(counts > 0, np.where(known, bins, 0).sum(axis=1) / np.maximum(counts, 1), np.nan)
