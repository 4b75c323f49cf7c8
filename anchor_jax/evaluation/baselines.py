"""Baselines: videos that need no network, to compare generated ones with."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import Source, read_all

_BLOCK_BYTES = 2**28  # of float32 pose renders held at once, of the truth and of the training set each


class Baselines:
  """For each true frame: the mean training frame, the training frame with the nearest pose, and the texture alone.

  The texture is missing if `make_texture_painter` returns None.
  """

  def __init__(self, truth: Source, training: Source, count: int):
    """Prepares the baselines of the first `count` true frames."""
    self._training = training
    self._mean = mean_frame(training)
    self._nearest = nearest_poses(truth, training, range(count))
    self._paint = make_texture_painter(truth, training, self._mean)

  def next(self, record: Mapping[str, NdArray]) -> dict[str, UInt8[NdArray, "H W 3"]]:
    """Returns the pictures for the next true frame by name.

    `record` includes its "surface" if known, and its "camera" (texture/background/camera_path.py) if that moves.
    """
    nearest = int(next(self._nearest))
    pictures = {
      "mean_training_frame": self._mean,
      "nearest_pose_training_frame": self._training.read(nearest, ("frame",))["frame"],
    }
    if self._paint is None:
      return pictures
    return pictures | {"texture_alone": self._paint(record["surface"], record.get("camera"))}


def make_texture_painter(
  truth: Source, training: Source, unknown: UInt8[NdArray, "H W 3"]
) -> Callable[[UInt8[NdArray, "H W 3"], Float[NdArray, "4"] | None], UInt8[NdArray, "H W 3"]] | None:
  """Returns a function that paints a surface map from the atlas, key frames and background plate of the training film.

  The function also takes the camera that shows the plate; None is the steady camera.

  None if either folder has no surface maps, or if their frames differ in size.

  Args:
    truth, training: as `evaluate` takes them.
    unknown: fills pixels that the film never shows.
  """
  if not (isinstance(training, PreparedSource) and has_surface(truth) and has_surface(training)):
    return None
  if truth.read(0, ("surface",))["surface"].shape != unknown.shape:
    return None
  # JAX takes seconds to import, and nothing else in this file needs it.
  import jax

  from anchor_jax.core.shapes import Array
  from anchor_jax.data.textures import texture_of_prepared
  from anchor_jax.evaluation.composite import composite
  from anchor_jax.texture.background.plate import ShownPlate
  from anchor_jax.texture.channels import PoseChannels, make_pose_channels

  person = int(training.people[np.flatnonzero(training.has_surface)[0]])
  texture = texture_of_prepared(training, person)
  pose_channels, shown = make_pose_channels("full", texture), ShownPlate(texture)

  @jax.jit
  def painted(pose_channels: PoseChannels, surface: Array, plates: Array | None) -> Array:
    return composite(pose_channels(surface[None], None, plates))[0]

  def paint(surface: UInt8[NdArray, "H W 3"], camera: Float[NdArray, "4"] | None) -> UInt8[NdArray, "H W 3"]:
    picture = np.asarray(painted(pose_channels, surface, None if camera is None else shown.through(camera)[None]))
    return np.where(picture[..., 3:] > 0, np.round(255 * picture[..., :3]).astype(np.uint8), unknown)

  return paint


def has_surface(source: Source) -> bool:
  """Whether any record has a surface map."""
  return isinstance(source, PreparedSource) and bool(source.has_surface.any())


def mean_frame(source: Source) -> UInt8[NdArray, "H W 3"]:
  """Returns the mean of all frames of a source, read one at a time."""
  total: NdArray | None = None
  for record in read_all(source, range(len(source)), ("frame",)):
    total = record["frame"].astype(np.float64) if total is None else total + record["frame"]
  assert total is not None, "a prepared folder has at least one record"
  return np.round(total / len(source)).astype(np.uint8)


def nearest_poses(queries: Source, known: Source, numbers: Iterable[int]) -> Iterator[int]:
  """Yields for each query record the number of the known record with the nearest pose render (squared difference).

  Holds two blocks of float32 renders, 256 MB each. The known renders are read once per block of queries, when its
  first result is taken.
  """
  numbers = list(numbers)
  size = queries.read(numbers[0], ("pose",))["pose"].size
  block = max(1, _BLOCK_BYTES // (4 * size))
  for start in range(0, len(numbers), block):
    yield from _nearest(_stack_poses(queries, numbers[start : start + block]), known, block).tolist()


def _nearest(queries: Float[NdArray, "T D"], known: Source, block: int) -> Int[NdArray, " T"]:
  """Numbers of the known records nearest to flattened renders."""
  smallest, numbers = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
  for first in range(0, len(known), block):
    renders = _stack_poses(known, range(first, min(first + block, len(known))))
    # The query's own square is a constant offset, so it is left out.
    distance = np.square(renders).sum(axis=1) - 2 * queries @ renders.T
    nearest = distance.argmin(axis=1)
    of_nearest = distance[np.arange(len(queries)), nearest]
    closer = of_nearest < smallest
    smallest, numbers = np.where(closer, of_nearest, smallest), np.where(closer, first + nearest, numbers)
  return numbers


def _stack_poses(source: Source, numbers: Iterable[int]) -> Float[NdArray, "T D"]:
  return np.stack([record["pose"].reshape(-1) for record in read_all(source, numbers, ("pose",))]).astype(np.float32)
