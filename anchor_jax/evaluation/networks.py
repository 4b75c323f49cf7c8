"""Measures that use published networks with weights from the user: LPIPS, FID, FVD and CLIP similarity.

docs/evaluation.md describes each protocol and how to create the weight files.
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
from anchor_jax.evaluation.frechet import Moments, frechet_distance
from anchor_jax.evaluation.published import i3d, inception, lpips
from anchor_jax.evaluation.published.torch_layers import Params, resize_bilinear
from anchor_jax.evaluation.tables import WHOLE
from anchor_jax.files.inputs import regular_file
from anchor_jax.formats.diffusers import load_model
from anchor_jax.formats.tensors import read_safetensors, read_tensors, refuse_pickled, weight_files
from anchor_jax.models.clip import CLIPVision, preprocess

CLIP_FRAMES = 16  # frames per FVD clip
_BATCH = 8  # frames per call of a network

Pictures = UInt8[NdArray, "B H W 3"]


class _BatchedMeasure:
  """Collects frames into batches for the network, and holds what the report says about the weights."""

  region = WHOLE

  def __init__(self, name: str, batch: int, facts: Mapping[str, Any], full_only: bool = False):
    self.name, self._batch, self._facts, self._full_only = name, batch, facts, full_only
    self._waiting: list[dict[str, NdArray]] = []
    self._frames = 0

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Adds the next frame; see `Measure.add`."""
    self._waiting.append({**images, "": record["frame"]})
    if len(self._waiting) == self._batch:
      self._flush()

  def _flush(self) -> None:
    """Runs the waiting frames; a short batch is padded with its last frame, so that nothing compiles twice."""
    count = len(self._waiting)
    if count and (count == self._batch or not self._full_only):
      rows = self._waiting + [self._waiting[-1]] * (self._batch - count)
      stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
      truth = stacked.pop("")
      self._frames += count
      self._take(stacked, truth, count)
    self._waiting = []

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    """Processes a batch, of which the first `count` frames are not padding."""
    raise NotImplementedError

  def details(self) -> dict[str, Any]:
    """Returns the number of frames, and the weights' file and hash."""
    self._flush()
    return {"frames": self._frames, **self._facts}


class PairMeasure(_BatchedMeasure):
  """The mean over frames of a figure that compares each generated frame with the true one."""

  def __init__(
    self,
    name: str,
    features: Callable[[Pictures], PyTree],
    compare: Callable[[PyTree, PyTree], Array],
    facts: Mapping[str, Any],
  ):
    """Takes the network, and a function from generated and true features to figures [B]."""
    super().__init__(name, _BATCH, facts)
    self._features, self._compare = features, compare
    self._sums: dict[str, float] = {}

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    true = self._features(truth)
    for name, pictures in images.items():
      values = np.asarray(self._compare(self._features(pictures), true), np.float64)
      self._sums[name] = self._sums.get(name, 0.0) + float(values[:count].sum())

  def figures(self) -> dict[str, float]:
    """Returns the means, by contender."""
    self._flush()
    return {name: total / self._frames for name, total in self._sums.items()}


class FrechetMeasure(_BatchedMeasure):
  """The Fréchet distance between a network's features of generated and true frames, or of clips."""

  def __init__(
    self, name: str, features: Callable[[Pictures], Array], size: int, facts: Mapping[str, Any], clip: int = 0
  ):
    """Takes the network, the size of its features, and the frames per clip; 0 computes features per frame."""
    super().__init__(name, clip or _BATCH, facts, full_only=bool(clip))
    self._features, self._size, self._clip = features, size, clip
    self._true, self._generated = Moments(size), {}

  def _take(self, images: Mapping[str, Pictures], truth: Pictures, count: int) -> None:
    new = 1 if self._clip else count
    self._true.add(np.asarray(self._features(truth))[:new])
    for name, pictures in images.items():
      self._generated.setdefault(name, Moments(self._size)).add(np.asarray(self._features(pictures))[:new])

  def figures(self) -> dict[str, float]:
    """Returns the distances, by contender; none for fewer than two frames or clips."""
    self._flush()
    if self._true.count < 2:
      return {}
    return {name: frechet_distance(self._true, moments) for name, moments in self._generated.items()}

  def details(self) -> dict[str, Any]:
    """Adds the number and length of clips, for FVD."""
    details = super().details()
    return details | ({"clips": self._true.count, "clip_frames": self._clip} if self._clip else {})


def read_lpips(file: str | Path) -> Params:
  """Returns the weights of LPIPS, with AlexNet or VGG16, whichever the file holds.

  Raises:
    UserError: the file lacks the tensors of the `lpips` package's LPIPS module.
  """

  def checked(params: Params, pictures: Array) -> Array:
    found = lpips.features(params, pictures / 127.5 - 1)
    return lpips.distance(params, found, found)

  return _read(Path(file), "the state of lpips.LPIPS", checked, 64)


def lpips_measure(file: str | Path) -> PairMeasure:
  """Returns LPIPS of full frames, with AlexNet or VGG16, whichever the file holds.

  Raises:
    UserError: as `read_lpips`; or, from `add`, frames are too small for the network.
  """

  def features(params: Params, pictures: Array) -> lpips.Features:
    least = lpips.least_side(params)
    if min(pictures.shape[1:3]) < least:
      raise UserError(f"LPIPS needs frames of at least {least} pixels: leave out --lpips")
    return lpips.features(params, pictures / 127.5 - 1)

  params = read_lpips(file)
  run, compare = jax.jit(features), jax.jit(lpips.distance)
  return PairMeasure(
    "lpips",
    functools.partial(run, params),
    lambda generated, true: compare(params, generated, true),
    _facts(Path(file)) | {"network": lpips.network_kind(params)},
  )


def fid_measure(file: str | Path) -> FrechetMeasure:
  """Returns FID of full frames, with InceptionV3. Raises UserError if the file lacks pytorch-fid's tensors."""

  def features(params: Params, pictures: Array) -> Float[Array, "B 2048"]:
    return inception.inception_features(params, pictures / 255)

  params = _read(Path(file), "pytorch-fid's InceptionV3", features, inception.SIDE)
  run = functools.partial(jax.jit(features), params)
  return FrechetMeasure("fid", run, inception.FEATURES, _facts(Path(file)))


def fvd_measure(file: str | Path) -> FrechetMeasure:
  """Returns FVD of full frames in clips of 16, with I3D. Raises UserError if the file lacks its tensors."""

  def features(params: Params, pictures: Array) -> Float[Array, "1 400"]:
    resized = resize_bilinear(pictures / 127.5 - 1, i3d.SIDE, i3d.SIDE)
    return i3d.i3d_features(params, resized[None])

  params = _read(Path(file), "I3D, 400 classes", features, i3d.SIDE, CLIP_FRAMES)
  run = functools.partial(jax.jit(features), params)
  return FrechetMeasure("fvd", run, i3d.FEATURES, _facts(Path(file)), CLIP_FRAMES)


def clip_measure(folder: str | Path) -> PairMeasure:
  """Returns the cosine similarity of CLIP's embeddings of generated and true frames.

  Args:
    folder: transformers' CLIPModel or CLIPVisionModelWithProjection.

  Raises:
    UserError: the folder has no image tower, or no projection.
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

  compare = lambda generated, true: (generated * true).sum(axis=-1)
  return PairMeasure("clip", functools.partial(features, params), compare, _facts(*weight_files(folder)))


MEASURES: dict[str, Callable[..., PairMeasure | FrechetMeasure]] = {  # keys: `measure.NETWORKS`
  "lpips": lpips_measure,
  "fid": fid_measure,
  "fvd": fvd_measure,
  "clip": clip_measure,
}


def _facts(*files: Path) -> dict[str, str]:
  """Names and common hash of the files."""
  digest = hashlib.sha256()
  for file in files:
    with file.open("rb") as stream:
      hashlib.file_digest(stream, lambda: digest)
  return {"weights": " ".join(file.name for file in files), "sha256": digest.hexdigest()}


def _read(file: Path, what: str, features: Callable[..., PyTree], side: int, count: int = 1) -> Params:
  """The tensors of a file, after checking that the network accepts them."""
  if not os.path.lexists(file):
    raise UserError(f"no file {file}: give the weights of {what} as safetensors (docs/evaluation.md)")
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
    raise UserError(f"{file} holds tensors of other sizes than {what} has: {reason}") from None
  return jax.tree.map(jnp.asarray, params)
