"""What all measures of whole videos do: they take in frames one at a time, and have figures in the end."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from anchor_jax.shapes import NdArray, UInt8


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
