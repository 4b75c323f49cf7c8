"""The body description that the page needs to render poses from landmarks: charts, face mesh, sizes."""

from typing import Any

from anchor_jax.body.charts import CHARTS, FINGER_JOINTS, THUMB_JOINTS
from anchor_jax.body.cloth import GROUPS
from anchor_jax.body.face_mesh import BROWS, EYES, HOLES, LIPS, MOUTH, RISE, FaceMap
from anchor_jax.body.face_points import IRISES
from anchor_jax.landmarks.mean_face import mean_face
from anchor_jax.landmarks.proportions.widths import TORSO_HEIGHTS, Widths


def body_description() -> dict[str, Any]:
  """Returns the description as JSON values; it is the same for every person."""
  points, triangles = mean_face()
  mesh = FaceMap(triangles, len(points))
  return {
    "charts": {chart.name: number for number, chart in enumerate(CHARTS)},
    "groups": GROUPS.tolist(),
    "torso_heights": list(TORSO_HEIGHTS),
    "finger_joints": list(FINGER_JOINTS),
    "thumb_joints": list(THUMB_JOINTS),
    "widths": Widths().to_json(),
    "mesh": {
      "triangles": mesh.triangles.reshape(-1).tolist(),
      "charts": mesh.charts.tolist(),
      "corners": [round(value, 6) for value in mesh.corners.reshape(-1).tolist()],
      "holes": HOLES,
      "rise": RISE,
      "eyes": EYES,
      "brows": BROWS,
      "lips": LIPS,
      "mouth": MOUTH,
      "irises": [iris[0] for iris in IRISES],
    },
  }
