"""Videos that need no network, beside which generated ones are measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import Source, read_all

_BLOCK_BYTES = 2**28  # of float32 pose renders held at once, of the truth and of the training set each


class Baselines:
  """For each true frame: the mean training frame, the training frame of the nearest pose, and the texture alone.

  The last is missing where `texture_alone` returns None.
  """

  def __init__(self, truth: Source, training: Source, count: int):
    """Takes records, and how many of the true frames, from the first on, may be asked for."""
    self._training = training
    self._mean = mean_frame(training)
    self._nearest = nearest_poses(truth, training, range(count))
    self._paint = texture_alone(truth, training, self._mean)

  def next(self, record: Mapping[str, NdArray]) -> dict[str, UInt8[NdArray, "H W 3"]]:
    """The pictures for the next true frame, by name; `record` has its "surface" where it is known."""
    nearest = int(next(self._nearest))
    pictures = {
      "mean_training_frame": self._mean,
      "nearest_pose_training_frame": self._training.read(nearest, ("frame",))["frame"],
    }
    return pictures if self._paint is None else pictures | {"texture_alone": self._paint(record["surface"])}


def texture_alone(
  truth: Source, training: Source, unknown: UInt8[NdArray, "H W 3"]
) -> Callable[[UInt8[NdArray, "H W 3"]], UInt8[NdArray, "H W 3"]] | None:
  """Returns what makes the picture of a surface map from the texture, key frames and room of the training film.

  None where either folder has no surface maps, or where their pictures are of different sizes.

  Args:
    truth, training: as `evaluate` takes them.
    unknown: shown where the film tells nothing.
  """
  if not (isinstance(training, PreparedSource) and has_surface(truth) and has_surface(training)):
    return None
  if truth.read(0, ("surface",))["surface"].shape != unknown.shape:
    return None
  # Nothing else here needs JAX, which takes seconds to import.
  import jax

  from anchor_jax.core.shapes import Array
  from anchor_jax.data.textures import texture_of_prepared
  from anchor_jax.texture.channels import PoseChannels, make_pose_channels
  from anchor_jax.texture.composite import composite

  person = int(training.people[np.flatnonzero(training.has_surface)[0]])
  pose_channels = make_pose_channels("full", texture_of_prepared(training, person))

  @jax.jit
  def made(pose_channels: PoseChannels, surface: Array) -> Array:
    return composite(pose_channels(surface[None]))[0]

  def paint(surface: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W 3"]:
    picture = np.asarray(made(pose_channels, surface))
    return np.where(picture[..., 3:] > 0, np.round(255 * picture[..., :3]).astype(np.uint8), unknown)

  return paint


def has_surface(source: Source) -> bool:
  """Whether the surface maps of some records are known."""
  return isinstance(source, PreparedSource) and bool(source.has_surface.any())


def mean_frame(source: Source) -> UInt8[NdArray, "H W 3"]:
  """The mean of all frames of a source, read one at a time."""
  total: NdArray | None = None
  for record in read_all(source, range(len(source)), ("frame",)):
    total = record["frame"].astype(np.float64) if total is None else total + record["frame"]
  assert total is not None, "a prepared folder has at least one record"
  return np.round(total / len(source)).astype(np.uint8)


def nearest_poses(wanted: Source, known: Source, numbers: Iterable[int]) -> Iterator[int]:
  """Yields for each wanted record the number of the known one whose pose render has the smallest squared difference.

  Holds two blocks of renders as float32, of a quarter of a gigabyte each, and reads the known renders once a block,
  when its first number is asked for.
  """
  numbers = list(numbers)
  size = wanted.read(numbers[0], ("pose",))["pose"].size
  block = max(1, _BLOCK_BYTES // (4 * size))
  for start in range(0, len(numbers), block):
    yield from _nearest(_stack_poses(wanted, numbers[start : start + block]), known, block).tolist()


def _nearest(wanted: Float[NdArray, "T D"], known: Source, block: int) -> Int[NdArray, " T"]:
  """Numbers of the known records that are nearest to flat renders."""
  best, found = np.full(len(wanted), np.inf), np.zeros(len(wanted), np.int64)
  for first in range(0, len(known), block):
    other = _stack_poses(known, range(first, min(first + block, len(known))))
    # The square of the wanted render is the same for all known ones.
    distance = np.square(other).sum(axis=1) - 2 * wanted @ other.T
    nearest = distance.argmin(axis=1)
    smallest = distance[np.arange(len(wanted)), nearest]
    better = smallest < best
    best, found = np.where(better, smallest, best), np.where(better, first + nearest, found)
  return found


def _stack_poses(source: Source, numbers: Iterable[int]) -> Float[NdArray, "T D"]:
  return np.stack([record["pose"].reshape(-1) for record in read_all(source, numbers, ("pose",))]).astype(np.float32)
