"""Reports: their JSON files, and their figures as text tables."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import has_fields, read_json
from anchor_jax.files.outputs import new_file

REGIONS = {"person": "person_mask", "face": "face_mask", "hands": "hands_mask", "whole": "whole_mask"}
WHOLE = "whole"
_LABEL, _COLUMN = 29, 30  # widths in characters
_FIGURES = {"psnr": ("PSNR", 5, 2), "ssim": ("SSIM", 6, 3), "flicker": ("flick.", 6, 2), "sharpness": ("sharp.", 6, 2)}
_NETWORK_FIGURES = {  # of full frames and of faces, if measured
  "lpips": ("LPIPS", 7, 4),
  "fid": ("FID", 8, 2),
  "fvd": ("FVD", 9, 2),
  "clip": ("CLIP", 7, 4),
  "identity": ("identity", 9, 3),
}


@dataclasses.dataclass(frozen=True)
class _Figures:
  """The figures of one contender in one region, as tables need them; NaN is an undefined figure."""

  psnr: float = 0.0
  ssim: float = 0.0
  flicker: float = 0.0
  sharpness: float = 0.0
  lpips: float = 0.0
  fid: float = 0.0
  fvd: float = 0.0
  clip: float = 0.0
  identity: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Region:
  """The part of a region that `comparison` uses: the figures of the generated frames."""

  generated: _Figures


@dataclasses.dataclass(frozen=True)
class _Report:
  """The part of a report that `comparison` uses; regions without a pixel are missing."""

  person: _Region
  face: _Region | None = None
  hands: _Region | None = None
  whole: _Region | None = None


def save_report(report: dict, path: Path) -> None:
  """Writes a report as JSON."""
  with new_file(path) as place:
    place.write_text(json.dumps(report, indent=1) + "\n")


def is_report(path: Path) -> bool:
  """Whether a file is a report of `evaluate`; other files are never overwritten with one."""
  return has_fields(path, "frames", "training_frames")


def summary(report: dict) -> str:
  """Returns the figures as text: a table with a row per contender and a column per region, and one of full frames."""
  regions = [region for region in REGIONS if region in report and region != WHOLE]
  lines = ["".join([f"{'':{_LABEL}}", *(f"{region:<{_COLUMN}}" for region in regions)])]
  lines.append(" " * _LABEL + f"{_header(_FIGURES):<{_COLUMN}}" * len(regions))
  lines += [
    _row(name, [_cells(report[region].get(name), _FIGURES) for region in regions]) for name in _names(report, regions)
  ]
  lines += _full_frame_lines(report)
  lines = [line.rstrip() for line in lines]
  if advice := head_advice(report):
    lines.append(advice)
  return "\n".join(
    [*lines, *_motion_lines(report.get("motion", {}), report.get("landmarks", "")), *_identity_lines(report)]
  )


def head_advice(report: Mapping) -> str:
  """Returns what to do if the head model lowers the face's PSNR; "" if it does not, or was not compared."""
  face = report.get("face", {})
  if "generated_without_head" not in face:
    return ""
  with_head, without = face["generated"]["psnr"], face["generated_without_head"]["psnr"]
  if with_head >= without:
    return ""
  return (
    f"The head model lowers the face's PSNR, {with_head:.2f} dB with it and {without:.2f} dB without:"
    " generate with --no-head, or train the head longer."
  )


def _full_frame_lines(report: Mapping) -> list[str]:
  """The table of full frames."""
  if WHOLE not in report:
    return []
  rows = {name: dict(figures) for name, figures in report[WHOLE].items()}
  for name, figures in report.get("face", {}).items():
    if "identity" in figures:
      rows.setdefault(name, {})["identity"] = figures["identity"]
  measured = {key: form for key, form in _NETWORK_FIGURES.items() if any(key in figures for figures in rows.values())}
  columns = _FIGURES | measured
  lines = [f"{'':{_LABEL}}full frame", " " * _LABEL + _header(columns)]
  return lines + [_row(name, [_cells(figures, columns)]) for name, figures in rows.items()]


def _header(columns: Mapping[str, tuple[str, int, int]]) -> str:
  first, *rest = columns.values()
  return " ".join([f"{first[0]:<{first[1]}}", *(f"{label:>{width}}" for label, width, _ in rest)])


def _names(report: Mapping, regions: Iterable[str]) -> list[str]:
  return list({name: None for region in regions for name in report[region]})


def _row(name: str, cells: Iterable[str]) -> str:
  return "".join([f"{name.replace('_', ' '):<{_LABEL}}", *(f"{cell:<{_COLUMN}}" for cell in cells)])


def _cells(figures: Mapping[str, float] | None, columns: Mapping[str, tuple[str, int, int]]) -> str:
  if figures is None:
    return ""
  return " ".join(
    f"{figures[key]:{width}.{digits}f}" if key in figures else f"{'-':>{width}}"
    for key, (_, width, digits) in columns.items()
  )


def _motion_lines(motion: dict[str, dict[str, float]], model: str) -> list[str]:
  """A line on the generated video's landmarks, if they were compared; it names a `model` that is not the default."""
  parts = [
    f"{part} {figures['error']:.1f} % ({100 * figures['found']:.0f} % found)"
    for part, figures in motion.items()
    if "error" in figures
  ]
  mouth = motion.get("face", {}).get("mouth")
  parts += [] if mouth is None else [f"mouth opening correlates {mouth:.2f}"]
  by = f", by {model}" if model else ""
  return [f"Landmark error in shoulder widths{by}: {', '.join(parts)}"] if parts else []


def _identity_lines(report: Mapping) -> list[str]:
  """A line on the distance among true faces, the scale for identity figures."""
  spread = report.get("measures", {}).get("identity", {}).get("of_truth")
  return [] if spread is None else [f"Identity: true faces are {spread:.3f} apart; the closer to that, the better."]


def comparison(reports: dict[str, dict]) -> str:
  """Returns tables of several runs: a row for each one's generated frames, a column for each region.

  Args:
    reports: by name, as `evaluate` returns them.
  """
  tables = {}
  for region in REGIONS:
    rows = {name: report[region]["generated"] for name, report in reports.items() if region in report}
    tables |= {region: rows} if rows else {}
  return summary(tables)


def read_reports(paths: list[Path]) -> dict[str, dict]:
  """Returns reports by file name; files with the same name get their folder's name too.

  Raises:
    UserError: a file is missing or not a report.
  """
  ambiguous = len({path.stem for path in paths}) < len(paths)
  reports = {}
  for path in paths:
    report = read_json(path, "report", "evaluate again", nan=True)
    if not (isinstance(report, dict) and isinstance(report.get("person"), dict) and "generated" in report["person"]):
      raise UserError(f"{path} is not a report: give files that this command's --output wrote")
    fields_of(_Report, report, path, "evaluate again")
    reports[f"{path.absolute().parent.name}/{path.stem}" if ambiguous else path.stem] = report
  return reports
