import numpy as np

from anchor_jax.body.charts import chart
from anchor_jax.body.face_mesh import EYES, LIPS, MOUTH, OVAL, FaceMap, flatten
from anchor_jax.body.mesh import TriangleMesh


def ring_triangles(outer, inner):
  """The band between two rings of points, both counted the same way round."""
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
  """A face of rings alone: oval, lips, mouth; points of the mesh on circles around the mouth."""
  upwards = LIPS[5:] + LIPS[:5]  # from its topmost point on, to the person's left, as the oval
  return np.array(ring_triangles(OVAL, upwards) + ring_triangles(upwards, MOUTH[5:] + MOUTH[:5]), np.int32)


def test_a_flat_face_has_no_triangle_turned_over():
  triangles = lips_in_a_disc()
  fan = [(a, b, 478) for a, b in zip(MOUTH, MOUTH[1:] + MOUTH[:1], strict=True)]
  closed = np.concatenate([triangles, fan])
  flat = flatten(closed, 479)
  a, b, c = np.moveaxis(flat[closed], 1, 0)
  area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
  assert (np.abs(area) > 1e-5).all() and (np.abs(np.abs(area).sum() / 2 - np.pi / 4) < 0.01)  # they tile the disc
  np.testing.assert_allclose(np.linalg.norm(flat[list(OVAL)] - 0.5, axis=1), 0.5)
  np.testing.assert_allclose(flat[10], [0.5, 1.0], atol=1e-9)  # the forehead is up
  assert flat[454, 0] > 0.9 > 0.1 > flat[234, 0]  # her left is on the picture's right


def test_lips_and_mouth_have_charts_of_their_own():
  face = FaceMap(lips_in_a_disc(), 478)
  number = {name: face.charts == chart(name) for name in ("face", "upper_lip", "lower_lip", "mouth")}
  assert number["mouth"].sum() == len(MOUTH) and number["face"].sum() == len(OVAL) + len(LIPS)
  assert number["upper_lip"].sum() + number["lower_lip"].sum() == len(LIPS) + len(MOUTH)
  assert set(face.triangles[number["upper_lip"]].ravel()) >= {0, 13} and 17 not in face.triangles[number["upper_lip"]]
  assert 17 in face.triangles[number["lower_lip"]] and 0 not in face.triangles[number["lower_lip"]]
  for mine in number.values():
    corners = face.corners[mine].reshape(-1, 2)
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0, 0], [1, 1]], atol=1e-5)


def test_an_eyeball_is_read_from_its_iris():
  face = FaceMap(lips_in_a_disc(), 478)
  points = np.zeros((478, 3), np.float32)
  angle = np.arange(16) * (2 * np.pi / 16)
  for eye, sign in zip(EYES, (-1, 1), strict=True):  # from the outer corner over the upper lid; y points down
    points[list(eye), :2] = np.stack([40.5 + sign * (20 + 16 * np.cos(angle)), 30.5 - 8 * np.sin(angle)], axis=1)
  read = []
  for look in (0.0, 2.0):
    points[468], points[473] = (20.5 + look, 30.5, 0), (60.5 + look, 30.5, 0)
    closed = face.close(points, np.array([0.0, 0, 10])).astype(np.float32)
    mesh = TriangleMesh(closed, face.triangles, skin=face.skin(closed, np.array([0.0, -1, 0])))
    patch = mesh.hit(np.arange(0, 80, dtype=np.float32)[None] + 0.5, np.arange(16, 45, dtype=np.float32)[:, None] + 0.5)
    for x, y in ((20 + look, 30), (24 + look, 27), (60 + look, 30)):
      row, column = int(y - 16), int(x)
      found = mesh.skin.place(*(np.array([value + 0.5]) for value in (x, y, 0.0)), patch.along[row, column][None])
      read.append([float(value[0]) for value in found])
  np.testing.assert_allclose(read[:3], read[3:], atol=0.01)  # the skin of the eyeball goes along
  assert read[0][0] == chart("eye", "right") and read[2][0] == chart("eye", "left")
  assert read[1][1] < read[0][1] and read[1][2] > read[0][2]  # inwards and up
