"""A request for a generated video: the flags of `generate`, with every input opened once."""

import argparse
import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.core.cli import say
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.backgrounds import Background
from anchor_jax.inference.head_choice import read_head_choice
from anchor_jax.inference.motions import OpenMotion, open_motion
from anchor_jax.inference.person import Person, load
from anchor_jax.inference.reference import Reference, read_reference
from anchor_jax.landmarks.networks.files import require_landmarks
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.motion.frames import Motion
from anchor_jax.store.weights import parts_in
from anchor_jax.video.camera import Camera, open_camera


@dataclasses.dataclass(frozen=True)
class Request:
  """A request for a video. Every input was opened and checked; the person is not loaded yet.

  Attributes:
    args: the flags.
    sampling: sampling settings that override the checkpoint's.
    motion: the motion to follow; None with a camera.
    camera: the camera to follow; None with a motion.
    reference: replaces the reference saved in training; None keeps it.
    background: replaces the background; None keeps it.
  """

  args: argparse.Namespace
  sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  motion: OpenMotion | None = None
  camera: Camera | None = None
  reference: Reference | None = None
  background: Background | None = None

  @property
  def tags(self) -> dict[str, str]:
    """Metadata of the video file."""
    return {"title": f"synthetic video of {self.args.checkpoint.resolve().name}", "synthetic": "true"}


def open_request(
  args: argparse.Namespace, sampling: Mapping[str, Any] | None = None, background: Background | None = None
) -> Request:
  """Returns the request that flags make; opening its inputs takes less time than loading a person.

  Args:
    args: of `flags.parse_flags`.
    sampling: of `flags.sampling_changes`.
    background: of `open_background`.

  Raises:
    UserError: an input is missing or can't be read.
  """
  parts_in(args.checkpoint)
  motion = camera = None
  if args.camera is None:
    names = ("frames", "fps", "video", "smplx_model", "person_at", "landmarks")
    options = {name: getattr(args, name) for name in names}
    # live, poses come at their frame rate; and which frames are left out is part of the length
    motion = open_motion(args.motion, **options, whole=args.live or args.skip_empty)
  else:
    require_landmarks(args.motion, args.landmarks)
    camera = open_camera(args.camera, args.fps)
  reference = None if args.appearance is None else read_reference(args.appearance)
  return Request(args, sampling or {}, motion, camera, reference, background)


def load_person(request: Request) -> Person:
  """Returns the person of a request, with its sampling settings and decoder.

  Raises:
    UserError: the checkpoint or the decoder can't be read, or a setting is out of range.
  """
  args = request.args
  head = True if args.head else False if args.no_head else None
  person = load(args.checkpoint, step=args.checkpoint_step, base=args.base, head=head)
  if head is None and (found := read_head_choice(args.checkpoint)) is not None and not found.helps:
    say(found.sentence())
  person = person.with_sampling(**request.sampling).with_decoder(args.decoder)
  return person if args.attended_frames is None else person.with_attended_frames(args.attended_frames)


def in_size(request: Request, person: Person) -> tuple[Request, Person]:
  """Returns request and person for frames of the size of --size; without the flag, as they are.

  A film as reference gives its size to weights without a person.
  """
  size, reference = request.args.size, request.reference
  if size is None and person.body.reference_image is None and reference is not None and reference.gather is not None:
    height, width = reference.picture.shape[:2]
    size = FrameSize(width, height)
  if size is None or size == person.body.frame_size:
    return request, person
  person = person.with_size(size)
  return dataclasses.replace(request, reference=reference and reference.with_size(size)), person


def body_measures(request: Request, person: Person) -> BodyMeasures | None:
  """Returns the measures of the body that the motion is rendered with; None if it has renders, or they are unknown.

  Those of the request's reference come first, then those of the person's training.
  """
  if request.motion is not None and request.motion.has_renders:
    return None
  reference = request.reference
  measures = person.measures if reference is None or reference.measures is None else reference.measures
  if measures is None and not request.args.no_retarget:
    say(
      "the person's body measures are unknown, so the motion is not retargeted: prepare the person's videos again, then"
      " train again"
    )
  return measures


def absence_line(motion: Motion, skipped: bool) -> str:
  """Returns the sentence that says in which frames of a motion nobody is seen; "" if there are none."""
  stretches = [f"{first} to {last}" for first, last in motion.absent_stretches()]
  if not stretches:
    return ""
  return f"nobody is seen in frames {', '.join(stretches)}: " + ("left out" if skipped else "the person rests there")


def frame_settings(
  request: Request, person: Person, fps: float, measures: BodyMeasures | None, blocks: bool = False
) -> dict[str, Any]:
  """Returns everything that the frames depend on, for the metadata of the file and for --resume.

  `blocks` is whether the poses of a long film are found in blocks.
  """
  args, body, head, background = request.args, person.body, person.head, request.background
  settings = {
    "synthetic": True,
    "made_by": f"anchor_jax {importlib.metadata.version('anchor_jax')}",
    "checkpoint": args.checkpoint.resolve().name,
    "motion": args.motion.name,
    **({"skip_empty": True} if args.skip_empty else {}),
    **({"poses": "in blocks"} if blocks else {}),
    **({} if args.smplx_model is None else {"smplx_model": args.smplx_model.name}),
    **({} if args.person_at is None else {"person_at": args.person_at}),
    **({} if args.landmarks == "mediapipe" else {"landmarks": args.landmarks}),
    **({} if args.seen_by == "still" else {"camera": args.seen_by}),
    **({} if args.size is None else {"size": args.size.to_json()}),
    **({} if args.frame is None else {"frame": args.frame}),
    "appearance": args.appearance.name if args.appearance else None,
    "seed": args.seed,
    "fps": fps,
    "watermark": args.watermark,
    **({} if args.decoder == "exact" else {"decoder": Path(args.decoder).name}),
    **({} if args.attended_frames is None else {"attended_frames": args.attended_frames}),
    **({} if background is None else {"background": background.name}),
    "body": {"step": body.step, **dataclasses.asdict(body.sample)},
    "head": head and {"step": head.step, **dataclasses.asdict(head.sample)},
  }
  if measures is not None and not args.no_retarget:
    settings["retarget"] = dataclasses.replace(measures, cloth=None).to_json()
  elif measures is not None and measures.widths is not None:  # an unmapped motion takes widths and cloth alone
    settings["widths"] = measures.widths.to_json()
  if measures is not None and measures.cloth is not None:
    settings["cloth"] = measures.cloth.checksum()  # its numbers are too many for a comment in a video
  return settings
