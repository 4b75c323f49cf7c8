"""Measures by published networks, whose weights the user supplies: LPIPS, FID, FVD and the similarity of CLIP.

docs/evaluation.md has the protocol of each, and how to make the weights' files.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.networks import CLIPVisionConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, NdArray, PyTree, UInt8
from anchor_jax.evaluation import i3d, inception, perceptual
from anchor_jax.evaluation.frechet import Moments, frechet_distance
from anchor_jax.evaluation.tables import WHOLE
from anchor_jax.evaluation.torch_layers import Params, resize_bilinear
from anchor_jax.files.inputs import regular_file
from anchor_jax.formats.diffusers import load_model
from anchor_jax.formats.tensors import read_safetensors, read_tensors, refuse_pickled, weight_files
from anchor_jax.models.clip import CLIPVision, preprocess

CLIP_FRAMES = 16  # of a clip of FVD
_AT_ONCE = 8  # frames that go through a network together

Pictures = UInt8[NdArray, "B H W 3"]


class _ByNetwork:
  """Stacks frames until there are enough for the network, and keeps what the report says of the weights."""

  region = WHOLE

  def __init__(self, name: str, at_once: int, facts: Mapping[str, Any], whole_only: bool = False):
    self.name, self._at_once, self._facts, self._whole_only = name, at_once, facts, whole_only
    self._waiting: list[dict[str, NdArray]] = []
    self._frames = 0

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Takes in the next frame, as `Measure.add` does."""
    self._waiting.append({**images, "": record["frame"]})
    if len(self._waiting) == self._at_once:
      self._flush()

  def _flush(self) -> None:
    """Gives the network what waits; the last frame again where it is too little, so that nothing compiles twice."""
    count = len(self._waiting)
    if count and (count == self._at_once or not self._whole_only):
      rows = self._waiting + [self._waiting[-1]] * (self._at_once - count)
      stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
      truth = stacked.pop("")
      self._frames += count
      self._take(stacked, truth, count)
    self._waiting = []

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    """Takes in a stack of frames, the first `count` of which are new."""
    raise NotImplementedError

  def details(self) -> dict[str, Any]:
    """The number of frames, and the weights' file and hash."""
    self._flush()
    return {"frames": self._frames, **self._facts}


class PairMeasure(_ByNetwork):
  """The mean over frames of a figure of each generated frame and the true one."""

  def __init__(
    self,
    name: str,
    features: Callable[[Pictures], PyTree],
    compare: Callable[[PyTree, PyTree], Array],
    facts: Mapping[str, Any],
  ):
    """Takes the network, and what makes figures [B] of its features of generated and of true pictures."""
    super().__init__(name, _AT_ONCE, facts)
    self._features, self._compare = features, compare
    self._sums: dict[str, float] = {}

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    wanted = self._features(truth)
    for name, pictures in images.items():
      values = np.asarray(self._compare(self._features(pictures), wanted), np.float64)
      self._sums[name] = self._sums.get(name, 0.0) + float(values[:count].sum())

  def figures(self) -> dict[str, float]:
    """The means, by contender."""
    self._flush()
    return {name: total / self._frames for name, total in self._sums.items()}


class FrechetMeasure(_ByNetwork):
  """The Fréchet distance between a network's features of generated and of true frames, or clips of frames."""

  def __init__(
    self, name: str, features: Callable[[Pictures], Array], size: int, facts: Mapping[str, Any], clip: int = 0
  ):
    """Takes the network, the size of its features, and the frames of a clip; 0: each frame has features of its own."""
    super().__init__(name, clip or _AT_ONCE, facts, whole_only=bool(clip))
    self._features, self._size, self._clip = features, size, clip
    self._true, self._made = Moments(size), {}

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    new = 1 if self._clip else count
    self._true.add(np.asarray(self._features(truth))[:new])
    for name, pictures in images.items():
      self._made.setdefault(name, Moments(self._size)).add(np.asarray(self._features(pictures))[:new])

  def figures(self) -> dict[str, float]:
    """The distances, by contender; none of fewer than two frames or clips."""
    self._flush()
    if self._true.count < 2:
      return {}
    return {name: frechet_distance(self._true, made) for name, made in self._made.items()}

  def details(self) -> dict[str, Any]:
    """Of FVD also the number of clips and their length."""
    found = super().details()
    return found | ({"clips": self._true.count, "clip_frames": self._clip} if self._clip else {})


def lpips_measure(file: str | Path) -> PairMeasure:
  """LPIPS of whole frames, by AlexNet or VGG16, whichever the file holds.

  Raises:
    UserError: the file does not hold the tensors of the `lpips` package's LPIPS module. Frames may be too small for the
      network, which `add` finds.
  """

  def features(params: Params, pictures: Array) -> perceptual.Features:
    least = perceptual.least_side(params)
    if min(pictures.shape[1:3]) < least:
      raise UserError(f"LPIPS needs frames of at least {least} pixels: leave out --lpips")
    return perceptual.features(params, pictures / 127.5 - 1)

  def checked(params: Params, pictures: Array) -> Array:
    made = features(params, pictures)
    return perceptual.distance(params, made, made)

  params = _read(Path(file), "the state of lpips.LPIPS", checked, 64)
  run, compare = jax.jit(features), jax.jit(perceptual.distance)
  return PairMeasure(
    "lpips",
    functools.partial(run, params),
    lambda made, true: compare(params, made, true),
    _facts(Path(file)) | {"network": perceptual.kind(params)},
  )


def fid_measure(file: str | Path) -> FrechetMeasure:
  """FID of whole frames, by InceptionV3. Raises UserError where the file does not hold pytorch-fid's tensors."""

  def features(params: Params, pictures: Array) -> Float[Array, "B 2048"]:
    return inception.inception_features(params, pictures / 255)

  params = _read(Path(file), "pytorch-fid's InceptionV3", features, inception.SIDE)
  run = functools.partial(jax.jit(features), params)
  return FrechetMeasure("fid", run, inception.FEATURES, _facts(Path(file)))


def fvd_measure(file: str | Path) -> FrechetMeasure:
  """FVD of whole frames in clips of 16, by I3D. Raises UserError where the file does not hold its tensors."""

  def features(params: Params, pictures: Array) -> Float[Array, "1 400"]:
    resized = resize_bilinear(pictures / 127.5 - 1, i3d.SIDE, i3d.SIDE)
    return i3d.i3d_features(params, resized[None])

  params = _read(Path(file), "I3D, 400 classes", features, i3d.SIDE, CLIP_FRAMES)
  run = functools.partial(jax.jit(features), params)
  return FrechetMeasure("fvd", run, i3d.FEATURES, _facts(Path(file)), CLIP_FRAMES)


def clip_measure(folder: str | Path) -> PairMeasure:
  """The cosine of CLIP's embeddings of generated and true frames.

  Args:
    folder: of transformers' CLIPModel or CLIPVisionModelWithProjection.

  Raises:
    UserError: the folder holds no image tower, or none with its projection.
  """
  folder = Path(folder)
  model = load_model(folder, CLIPVisionConfig, np.float32)
  projection = read_tensors(folder).get("visual_projection.weight")
  if projection is None:
    raise UserError(f"{folder} has no visual_projection: give a folder of CLIPModel or CLIPVisionModelWithProjection")
  assert isinstance(model.config, CLIPVisionConfig)
  tower, size = CLIPVision(model.config), model.config.image_size
  params = jax.tree.map(jnp.asarray, ({"params": model.params}, projection.astype(np.float32).read()))

  @jax.jit
  def features(params: PyTree, pictures: Array) -> Float[Array, "B D"]:
    variables, projection = params
    return jnp.asarray(tower.apply(variables, preprocess(pictures / 255.0, size), projection, method="embed"))

  compare = lambda made, true: (made * true).sum(axis=-1)
  return PairMeasure("clip", functools.partial(features, params), compare, _facts(*weight_files(folder)))


MEASURES: dict[str, Callable[..., PairMeasure | FrechetMeasure]] = {  # by the names in `measure.NETWORKS`
  "lpips": lpips_measure,
  "fid": fid_measure,
  "fvd": fvd_measure,
  "clip": clip_measure,
}


def _facts(*files: Path) -> dict[str, str]:
  """Names and hash of the files, one after the other."""
  digest = hashlib.sha256()
  for file in files:
    with file.open("rb") as stream:
      hashlib.file_digest(stream, lambda: digest)
  return {"weights": " ".join(file.name for file in files), "sha256": digest.hexdigest()}


def _read(file: Path, what: str, features: Callable[..., PyTree], side: int, count: int = 1) -> Params:
  """The tensors of a file, once a network was found to take them."""
  if not os.path.lexists(file):
    raise UserError(f"there is no file {file}: give the weights of {what} as safetensors (docs/evaluation.md)")
  regular_file(file, f"file of the weights of {what}")
  refuse_pickled(file, file.with_suffix(".safetensors"))
  params = {
    name: tensor.astype(np.float32).read()
    for name, tensor in read_safetensors(file).items()
    if tensor.dtype.kind == "f"
  }
  try:
    jax.eval_shape(features, params, jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8))
  except KeyError as error:
    raise UserError(f"{file} has no tensor {error}: give the weights of {what} (docs/evaluation.md)") from None
  except (TypeError, ValueError) as error:
    reason = str(error).partition("\n")[0]
    raise UserError(f"{file} holds tensors of other sizes than {what}: {reason}") from None
  return jax.tree.map(jnp.asarray, params)
