"""One of two processes that save checkpoints, damage one process's share of the newest, and restore together.

python restoring_pod.py FOLDER HOST:PORT PROCESS
"""

import pathlib
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.step import State


def numbers(step):
  """Incompressible, so that each process's share is in its own files."""
  return np.random.default_rng(step).normal(size=4096).astype(np.float32)


def state(step, mesh):
  place = lambda array, spec: jax.make_array_from_callback(
    array.shape, NamedSharding(mesh, spec), lambda index: array[index]
  )
  count = lambda number: place(np.int32(number), PartitionSpec())
  weights = {"vae": place(numbers(step), PartitionSpec("devices"))}
  return State(count(step), weights, {"count": count(step)}, None, count(0), count(0))


def main(folder, coordinator, process):
  jax.distributed.initialize(coordinator, 2, int(process))
  mesh = Mesh(jax.devices(), ("devices",))
  with Checkpoints(folder) as checkpoints:
    for step in (2, 4):
      checkpoints.save(step, state(step, mesh), {"position": step})
      checkpoints.wait()
    multihost_utils.sync_global_devices("saved")
    if process == "0":
      share = folder / "checkpoints/4/state/ocdbt.process_1"
      harmed = [path for path in share.rglob("*") if path.is_file()]
      assert harmed
      for path in harmed:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    multihost_utils.sync_global_devices("damaged")
    restored, position = checkpoints.restore(state(0, mesh), {"position": 0})
    for shard in restored.weights["vae"].addressable_shards:
      np.testing.assert_array_equal(shard.data, numbers(int(restored.step))[shard.index])
    print(f"process {process} restored {int(restored.step)} {position} and keeps {checkpoints.newest()}")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
