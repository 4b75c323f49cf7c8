"""The interface of measures: they take one frame at a time and return their figures at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.evaluation.identity import IdentityMeasure

# Measures that need weights: the help text of each one's flag.
NETWORKS = {
  "lpips": "LPIPS with these weights: the lpips package's, as safetensors (docs/evaluation.md)",
  "fid": "FID with these weights: pytorch-fid's InceptionV3, as safetensors",
  "fvd": "FVD with these weights: I3D, as safetensors",
  "clip": "CLIP similarity with the model in this folder",
}


@runtime_checkable
class Measure(Protocol):
  """Compares videos with the true one; memory does not grow with their length.

  Attributes:
    name: of the figure in the report.
    region: of the report in which the figure appears.
  """

  name: str
  region: str

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Adds the next frame.

    Args:
      images: of each contender by name; the same names in every call.
      record: the true "frame" and the masks of regions, such as "face_mask".
    """
    ...

  def figures(self) -> dict[str, float]:
    """Returns the figure of each contender after the last frame; those that could not be measured are missing."""
    ...

  def details(self) -> dict[str, Any]:
    """Returns how it was measured, for the report: counts, sizes, the weights' file and its hash."""
    ...


def open_measures(files: Mapping[str, str | Path], identity: bool = False) -> list[Measure]:
  """Returns the measures that use published networks.

  Args:
    files: weights by the names in `NETWORKS`; CLIP's is a folder.
    identity: also measure identity, with the installed face models.

  Raises:
    UserError: a file is missing or holds other weights, or the face models are not installed.
  """
  measures: list[Measure] = []
  if files:
    from anchor_jax.evaluation.networks import MEASURES  # imports JAX, which takes seconds

    measures += [MEASURES[name](Path(file)) for name, file in files.items()]
  return [*measures, IdentityMeasure()] if identity else measures
