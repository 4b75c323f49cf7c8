"""Anchor videos of a person from one minute of film: Make-Your-Anchor (CVPR 2024) in JAX/Flax.

  import anchor_jax as aj

  aj.prepare("ana.mp4", "data/ana")  # a prepared folder: frames, poses, masks and faces
  for part in ("body", "head"):
    aj.train(aj.load_config(f"studio_finetune.py:{part}", {"data.path": "data/ana"}), "runs/ana")
  person = aj.load("runs/ana")
  motion = aj.read_motion("dance.mp4", size=person.size)
  aj.write_video("ana_dances.mp4", person.animate(motion), motion.fps)

Names are imported on first use: importing the package loads neither JAX nor any other heavy dependency.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from anchor_jax.config.find import load_config
  from anchor_jax.config.run import RunConfig, run_config
  from anchor_jax.core.errors import UserError
  from anchor_jax.core.sharding import sampling_mesh
  from anchor_jax.evaluate import evaluate
  from anchor_jax.inference.motions import read_motion
  from anchor_jax.inference.person import Person, load
  from anchor_jax.inference.reference import Reference, read_reference
  from anchor_jax.motion.frames import Motion
  from anchor_jax.prepare import prepare, prepare_studio
  from anchor_jax.studio.video import write_studio_video
  from anchor_jax.train import train
  from anchor_jax.video.picture import read_picture
  from anchor_jax.video.read import read_frames
  from anchor_jax.video.write import write_video

__version__ = "0.2.0"

_HOME = {
  "Motion": "anchor_jax.motion.frames",
  "Person": "anchor_jax.inference.person",
  "Reference": "anchor_jax.inference.reference",
  "RunConfig": "anchor_jax.config.run",
  "UserError": "anchor_jax.core.errors",
  "evaluate": "anchor_jax.evaluate",
  "load": "anchor_jax.inference.person",
  "load_config": "anchor_jax.config.find",
  "prepare": "anchor_jax.prepare",
  "prepare_studio": "anchor_jax.prepare",
  "read_frames": "anchor_jax.video.read",
  "read_motion": "anchor_jax.inference.motions",
  "read_picture": "anchor_jax.video.picture",
  "read_reference": "anchor_jax.inference.reference",
  "run_config": "anchor_jax.config.run",
  "sampling_mesh": "anchor_jax.core.sharding",
  "train": "anchor_jax.train",
  "write_studio_video": "anchor_jax.studio.video",
  "write_video": "anchor_jax.video.write",
}
__all__ = [
  "Motion",
  "Person",
  "Reference",
  "RunConfig",
  "UserError",
  "evaluate",
  "load",
  "load_config",
  "prepare",
  "prepare_studio",
  "read_frames",
  "read_motion",
  "read_picture",
  "read_reference",
  "run_config",
  "sampling_mesh",
  "train",
  "write_studio_video",
  "write_video",
]


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f"module 'anchor_jax' has no attribute {name!r}")
  module = importlib.import_module(_HOME[name])
  # `anchor_jax.train` is a callable module (cli.make_callable), and importing it has already bound that name.
  return module if _HOME[name] == f"anchor_jax.{name}" else getattr(module, name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
