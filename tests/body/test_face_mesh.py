"""The face mesh: its flat map, charts and eyeballs."""

import numpy as np

from anchor_jax.body.charts import chart
from anchor_jax.body.face_mesh import EYES, LIPS, MOUTH, OVAL, FaceMap, flatten
from anchor_jax.body.mesh import TriangleMesh


def ring_triangles(outer, inner):
  """The band between two rings of points, both in the same direction."""
  triangles, i, j = [], 0, 0
  while i < len(outer) or j < len(inner):
    if i * len(inner) <= j * len(outer):
      triangles.append((outer[i % len(outer)], outer[(i + 1) % len(outer)], inner[j % len(inner)]))
      i += 1
    else:
      triangles.append((outer[i % len(outer)], inner[(j + 1) % len(inner)], inner[j % len(inner)]))
      j += 1
  return triangles


def lips_in_a_disc():
  """Triangles of a face with three rings only: oval, lips, mouth."""
  upward = LIPS[5:] + LIPS[:5]  # starts at the top and runs to the person's left, like the oval
  return np.array(ring_triangles(OVAL, upward) + ring_triangles(upward, MOUTH[5:] + MOUTH[:5]), np.int32)


def test_flattening_flips_no_triangle():
  triangles = lips_in_a_disc()
  fan = [(a, b, 478) for a, b in zip(MOUTH, MOUTH[1:] + MOUTH[:1], strict=True)]
  closed = np.concatenate([triangles, fan])
  flat = flatten(closed, 479)
  a, b, c = np.moveaxis(flat[closed], 1, 0)
  area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
  assert (np.abs(area) > 1e-5).all() and (np.abs(np.abs(area).sum() / 2 - np.pi / 4) < 0.01)  # they tile the disc
  np.testing.assert_allclose(np.linalg.norm(flat[list(OVAL)] - 0.5, axis=1), 0.5)
  np.testing.assert_allclose(flat[10], [0.5, 1.0], atol=1e-9)  # the forehead is up
  assert flat[454, 0] > 0.9 > 0.1 > flat[234, 0]  # the person's left is on the right


def test_lips_and_mouth_have_separate_charts():
  face = FaceMap(lips_in_a_disc(), 478)
  number = {name: face.charts == chart(name) for name in ("face", "upper_lip", "lower_lip", "mouth")}
  assert number["mouth"].sum() == len(MOUTH) and number["face"].sum() == len(OVAL) + len(LIPS)
  assert number["upper_lip"].sum() + number["lower_lip"].sum() == len(LIPS) + len(MOUTH)
  assert set(face.triangles[number["upper_lip"]].ravel()) >= {0, 13} and 17 not in face.triangles[number["upper_lip"]]
  assert 17 in face.triangles[number["lower_lip"]] and 0 not in face.triangles[number["lower_lip"]]
  for in_chart in number.values():
    corners = face.corners[in_chart].reshape(-1, 2)
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0, 0], [1, 1]], atol=1e-5)


def test_eyeball_coordinates_follow_the_iris():
  face = FaceMap(lips_in_a_disc(), 478)
  points = np.zeros((478, 3), np.float32)
  angle = np.arange(16) * (2 * np.pi / 16)
  for eye, sign in zip(EYES, (-1, 1), strict=True):  # from the outer corner along the upper lid; y points down
    points[list(eye), :2] = np.stack([40.5 + sign * (20 + 16 * np.cos(angle)), 30.5 - 8 * np.sin(angle)], axis=1)
  coordinates = []
  for look in (0.0, 2.0):
    points[468], points[473] = (20.5 + look, 30.5, 0), (60.5 + look, 30.5, 0)
    closed = face.close(points, np.array([0.0, 0, 10])).astype(np.float32)
    mesh = TriangleMesh(closed, face.triangles, skin=face.skin(closed, np.array([0.0, -1, 0])))
    patch = mesh.hit(np.arange(0, 80, dtype=np.float32)[None] + 0.5, np.arange(16, 45, dtype=np.float32)[:, None] + 0.5)
    for x, y in ((20 + look, 30), (24 + look, 27), (60 + look, 30)):
      row, column = int(y - 16), int(x)
      found = mesh.skin.place(*(np.array([value + 0.5]) for value in (x, y, 0.0)), patch.along[row, column][None])
      coordinates.append([float(value[0]) for value in found])
  np.testing.assert_allclose(coordinates[:3], coordinates[3:], atol=0.01)  # the skin moves with the eyeball
  assert coordinates[0][0] == chart("eye", "right") and coordinates[2][0] == chart("eye", "left")
  assert coordinates[1][1] < coordinates[0][1] and coordinates[1][2] > coordinates[0][2]  # inward and up
