"""Landmark networks on LiteRT: TensorFlow Lite files, run on one thread of the CPU, deterministic to the bit."""

from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray
from anchor_jax.landmarks.networks.graphs import Graph


class LiteNetwork:
  """A network from the bytes of a TensorFlow Lite file; call it with its inputs for its outputs, in file order."""

  def __init__(self, content: bytes):
    """Prepares the network.

    Raises:
      ImportError: ai-edge-litert is not installed.
      ValueError: the file is damaged, or has operations that LiteRT does not know.
    """
    from ai_edge_litert.interpreter import Interpreter

    self._interpreter = Interpreter(model_content=content, num_threads=1)
    self._interpreter.allocate_tensors()
    self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
    self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

  def __call__(self, *inputs: Float[NdArray, "..."]) -> list[Float[NdArray, "..."]]:
    """Returns the outputs; one network serves one thread at a time."""
    for index, value in zip(self._inputs, inputs, strict=True):
      self._interpreter.set_tensor(index, value)
    self._interpreter.invoke()
    return [self._interpreter.get_tensor(index) for index in self._outputs]


class _Region(NamedTuple):
  """Lips or an eye: the crop of the feature map in which the attention network looks again.

  Attributes:
    points: numbers of the mesh's points that the region's own points replace, in their order.
    left, right: numbers of the points that lie level in the crop.
    width, height: of the crop.
    scale_x, scale_y: how much larger the crop is than the box of the points.
  """

  points: Int[NdArray, " N"]
  left: int
  right: int
  width: int
  height: int
  scale_x: float
  scale_y: float

  def transform(self, mesh: Float[NdArray, "468 3"]) -> Float[NdArray, "1 4 4"]:
    """From places in the crop to places in the feature map, in which `mesh` is given."""
    along = mesh[self.right, :2] - mesh[self.left, :2]
    cos, sin = along / np.hypot(*along)
    turn = np.array([[cos, sin], [-sin, cos]])
    level = mesh[self.points, :2] @ turn.T
    low, high = level.min(axis=0), level.max(axis=0)
    center = turn.T @ ((low + high) / 2)
    zoom = (high - low) * (self.scale_x, self.scale_y) / (self.width, self.height)
    matrix = np.eye(4, dtype=np.float32)
    matrix[:2, :2] = turn.T * zoom
    matrix[:2, 3] = center - matrix[:2, :2] @ (self.width / 2, self.height / 2)
    return matrix[None]

  def crop(self, features: Float[NdArray, "1 H W C"], matrix: Float[NdArray, "1 4 4"]) -> Float[NdArray, "1 h w C"]:
    """The crop, bilinear between the centers of the map's cells; 0 outside the map."""
    height, width = features.shape[1:3]
    y, x = np.mgrid[: self.height, : self.width]
    places = np.stack([x + 0.5, y + 0.5], axis=-1) @ matrix[0, :2, :2].T + matrix[0, :2, 3] - 0.5
    inside = np.asarray((places >= 0) & (places <= (width - 1, height - 1))).all(axis=-1, keepdims=True)
    places = np.where(inside, places, 0)
    low = np.floor(places).astype(int)
    share = (places - low).astype(np.float32)
    high = np.minimum(low + 1, (width - 1, height - 1))
    rows = [
      features[0, side[..., 1], low[..., 0]] * (1 - share[..., :1])
      + features[0, side[..., 1], high[..., 0]] * share[..., :1]
      for side in (low, high)
    ]
    crop = rows[0] * (1 - share[..., 1:]) + rows[1] * share[..., 1:]
    return (crop * inside).astype(np.float32)[None]


class AttentionFaceNetwork:
  """The face network with attention, whose three custom operations are computed here in numpy.

  The file's graph is split at those operations. A trunk gives the mesh, the feature map and the face flag. Lips and
  eyes are cropped from the feature map where the mesh says, and a second graph finds their points in the crops. The
  sizes, scales and point numbers of these regions are in the file.
  """

  def __init__(self, content: bytes):
    """Prepares both graphs.

    Raises:
      ImportError: ai-edge-litert is not installed.
      ValueError: the file is damaged, or is another network.
    """
    from flatbuffers import flexbuffers

    graph = Graph(content)
    of_kind = lambda kind: [operator for operator in graph.operators if operator.custom == kind]
    matrices = of_kind("Landmarks2TransformMatrix")
    crops, placed = of_kind("TransformTensorBilinear"), of_kind("TransformLandmarks")
    if (len(matrices), len(crops), len(placed), len(graph.outputs)) != (3, 3, 5, 7):
      raise ValueError("this is not the face network with attention")
    self._regions = []
    for operator in matrices:
      options: Any = flexbuffers.Loads(operator.options)
      self._regions.append(
        _Region(
          np.array(options["subset_idxs"]), options["left_rotation_idx"], options["right_rotation_idx"],
          options["output_width"], options["output_height"], options["scale_x"], options["scale_y"],
        )
      )  # fmt: skip
    mesh, flag, features = graph.outputs[0], graph.outputs[6], crops[0].inputs[0]
    trunk = [mesh, flag, features, *(operator.inputs[0] for operator in matrices)]
    self._trunk = LiteNetwork(graph.part(graph.inputs, trunk))
    stops = [operator.outputs[0] for operator in (*matrices, *crops)]
    # of each of lips, left eye, left iris, right eye, right iris: its points in the crop, and the matrix from there
    ends = [tensor for operator in placed for tensor in operator.inputs]
    unique = sorted(set(ends))
    self._ends = [unique.index(tensor) for tensor in ends]
    self._heads = LiteNetwork(graph.part(stops, unique))

  def __call__(self, picture: Float[NdArray, "1 192 192 3"]) -> tuple[Float[NdArray, "478 3"], float]:
    """Returns the points in pixels of the crop, and the logit of a face being there; `picture` is RGB in [0, 1]."""
    mesh, flag, features, *scaled = self._trunk(picture)
    points = np.concatenate([mesh.reshape(468, 3), np.zeros((10, 3), np.float32)])
    matrices = [region.transform(places.reshape(468, 3)) for region, places in zip(self._regions, scaled, strict=True)]
    crops = [region.crop(features, matrix) for region, matrix in zip(self._regions, matrices, strict=True)]
    found = self._heads(*matrices, *crops)
    ends = [found[index] for index in self._ends]
    lips, left, left_iris, right, right_iris = (
      local[0] @ matrix[0, :2, :2].T + matrix[0, :2, 3] for local, matrix in zip(ends[::2], ends[1::2], strict=True)
    )
    for region, local in zip(self._regions, (lips, left, right), strict=True):
      points[region.points, :2] = local
    # an iris lies as deep as the rim of its eye, which the region begins with
    for first, local, region in ((468, left_iris, self._regions[1]), (473, right_iris, self._regions[2])):
      points[first : first + 5, :2] = local
      points[first : first + 5, 2] = points[region.points[:16], 2].mean()
    return points, float(flag.ravel()[0])
