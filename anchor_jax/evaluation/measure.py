"""What all measures of whole videos do: they take in frames one at a time, and have figures in the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.evaluation.identity import IdentityMeasure

# The measures that need weights, with what those are.
NETWORKS = {
  "lpips": "LPIPS by these weights, safetensors of the lpips package (docs/evaluation.md)",
  "fid": "FID by these weights, safetensors of pytorch-fid's InceptionV3",
  "fvd": "FVD by these weights, safetensors of I3D",
  "clip": "similarity by the CLIP model in this folder",
}


@runtime_checkable
class Measure(Protocol):
  """A measure of videos beside the true one, in memory that does not grow with their length.

  Attributes:
    name: of the figure in the report.
    region: to which region of the report it belongs.
  """

  name: str
  region: str

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Takes in the next frame.

    Args:
      images: of each contender by name, the same names each time.
      record: the true "frame" and the masks of regions, such as "face_mask".
    """
    ...

  def figures(self) -> dict[str, float]:
    """The figure of each contender, once all frames were added; those that could not be measured are missing."""
    ...

  def details(self) -> dict[str, Any]:
    """How it was measured, for the report: counts, sizes, the weights' file and its hash."""
    ...


def open_measures(files: Mapping[str, str | Path], identity: bool = False) -> list[Measure]:
  """Returns measures by published networks.

  Args:
    files: of weights, by the names in `NETWORKS`; CLIP's is a folder.
    identity: whether to measure identity too, by models that are installed.

  Raises:
    UserError: a file is missing or holds other weights, or the models for identity are not installed.
  """
  measures: list[Measure] = []
  if files:
    from anchor_jax.evaluation.networks import MEASURES  # imports JAX, which takes seconds

    measures += [MEASURES[name](Path(file)) for name, file in files.items()]
  return [*measures, IdentityMeasure()] if identity else measures
