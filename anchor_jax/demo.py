"""The full pipeline on one machine: films a studio person, trains on the film, and generates an unseen motion.

Example:
  python -m anchor_jax.demo --output=runs/demo

Writes anchor.mp4, side_by_side.mp4 (pose, generated, truth), contact_sheet.png, report.html and report.json to the
output folder. Neither the person nor the motions are in the training set of the shipped weights.

--film=FILM.mp4 takes a film of a real person instead: it learns from the first four fifths, generates the motion of the
last fifth, which it does not learn from, and compares the result with the film (`make real FILM=FILM.mp4`). No head is
trained: faces that the body paints are better than those a head repaints after as many steps. With --lpips, LPIPS is
part of the loss, which makes prints, hair and cloth sharper, and of the report.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.config.find import load_config
from anchor_jax.config.run import FILM_STEPS, LPIPS_WEIGHT, RunConfig
from anchor_jax.core.cli import Parser, command, run, say
from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.evaluate import evaluate
from anchor_jax.evaluation.measure import open_measures
from anchor_jax.evaluation.page import ComparisonPage, is_page
from anchor_jax.evaluation.results import append_results, record_flag, report_figures, row_of
from anchor_jax.evaluation.tables import is_report, save_report, summary
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import check_output_file, new_file, prepare_parent, refuse_overwriting
from anchor_jax.generate import is_synthetic
from anchor_jax.inference.motions import read_motion
from anchor_jax.landmarks.framing import AutoSize, parse_size
from anchor_jax.landmarks.networks.files import landmarks_flag
from anchor_jax.prepare import prepare
from anchor_jax.studio import write_studio_video
from anchor_jax.train import train
from anchor_jax.video.write import write_video

# Pre-training never uses seeds this large (prepare --studio counts from 0).
IDENTITY, FILMED_MOTION, NEW_MOTION = 1_000_003, 2_000_003, 2_000_004
FPS = 25
CONFIGS = {128: "studio_finetune.py", 256: "studio_256.py", 512: "studio_512.py"}  # by the side of a square
_WITH_HEAD = (CONFIGS[128],)  # those that have a shipped head
_MULTIPLES = {128: 1, 256: 32, 512: 64}  # of which the frames' sides must be multiples for each, besides `FrameSize`
_CLOSE = 0.75  # a square takes the settings of the largest side below its own / _CLOSE


@dataclasses.dataclass(frozen=True)
class Size:
  """How much the demo films, trains and generates.

  Attributes:
    pixels: of the videos.
    seconds: length of the training film.
    frames: number of frames to generate.
    body_steps, head_steps: fine-tuning steps; None takes the config's, 0 trains no head. The default has no head: the
      body sees the film, so its faces are better than those a head repaints after 200 steps (results/head.jsonl).
  """

  pixels: FrameSize = FrameSize(128, 128)
  seconds: float = 60
  frames: int = 125
  body_steps: int | None = None
  head_steps: int | None = 0


LEARNED = 0.8  # of a real film; the rest is held out

SMOKE = Size(seconds=4, frames=20, body_steps=4, head_steps=4)


def demo(output: Path, size: Size, config_file: str) -> dict:
  """Runs every stage and returns the report."""
  demo_config(config_file, "body", output / "film", None)  # refuse a bad config before filming for a minute
  check_demo(output)
  prepare_parent(output / "report.json")
  stages, done = stage_clock()
  say(f"1/5 filming {size.seconds:g} s of studio person {IDENTITY}, and an unseen motion", flush=True)
  film, unseen = output / "film.mp4", output / "unseen.mp4"
  common = {"identity_seed": IDENTITY, "size": size.pixels, "fps": FPS}
  write_studio_video(film, motion_seed=FILMED_MOTION, seconds=size.seconds, progress="film", **common)
  write_studio_video(unseen, motion_seed=NEW_MOTION, seconds=size.frames / FPS, progress="unseen motion", **common)
  done("film")

  say("2/5 preparing", flush=True)
  prepare([film], output / "film", size=size.pixels, fps=FPS / 2)  # adjacent frames add little
  prepare([unseen], output / "unseen", size=size.pixels)
  done("prepare")
  train_parts(output, size, config_file, done)
  return finish(output, compare(output, size, FPS, done), stages)


def film_demo(
  film: Path,
  output: Path,
  size: Size,
  pixels: FrameSize | AutoSize,
  config_file: str,
  lpips: Path | None = None,
  landmarks: str = "mediapipe",
) -> dict:
  """Learns from the first part of a real film, generates the motion of the rest, and returns the report.

  If the rest has several clips, the first one is generated.

  Args:
    film: of one person.
    output: the folder for everything.
    size: how much is trained.
    pixels: size of the frames, as `prepare` takes it.
    config_file: fine-tuning settings.
    lpips: LPIPS's weights, for the loss and for the report; None leaves it out.
    landmarks: the landmark model, if the film has no sidecar.
  """
  check_demo(output)
  prepare_parent(output / "report.json")
  stages, done = stage_clock()
  say(f"1/5 preparing the first {100 * LEARNED:.0f} % of {printable(film)}", flush=True)
  prepare([film], output / "film", size=pixels, part=(0.0, LEARNED), landmarks=landmarks)
  say("2/5 preparing the rest, to compare with", flush=True)
  frames = FrameSize.from_json(open_prepared(output / "film").meta["size"])
  prepare([film], output / "unseen", size=frames, part=(LEARNED, 1.0), like=output / "film", landmarks=landmarks)
  done("prepare")
  train_parts(output, size, config_file, done, lpips)
  truth = open_prepared(output / "unseen")
  size = dataclasses.replace(size, frames=truth.meta["videos"][0]["frames"])
  return finish(output, compare(output, size, truth.fps, done, lpips), stages)


def settings_for(size: FrameSize | AutoSize) -> str:
  """Returns the name of the fine-tuning settings for frames of this size, or of about as many pixels."""
  sides = (size.side, size.side) if isinstance(size, AutoSize) else tuple(size)
  auto = isinstance(size, AutoSize)  # its sides are multiples of 64
  large = [
    side
    for side, multiple in _MULTIPLES.items()
    if math.sqrt(math.prod(sides)) > _CLOSE * side and (auto or all(one % multiple == 0 for one in sides))
  ]
  return CONFIGS[max(large, default=min(CONFIGS))]


def train_parts(
  output: Path, size: Size, config_file: str, done: Callable[[str], None], lpips: Path | None = None
) -> None:
  """Trains body and head on the folder's film."""
  for number, (part, steps) in enumerate((("body", size.body_steps), ("head", size.head_steps)), start=3):
    if steps == 0:
      say(f"{number}/5 no {part} is trained", flush=True)
      continue
    say(f"{number}/5 training the {part}, starting from the shipped weights", flush=True)
    config = demo_config(config_file, part, output / "film", steps)
    if lpips is not None:
      config = dataclasses.replace(config, lpips=LPIPS_WEIGHT, lpips_weights=str(lpips))
    train(config, output / "person")
    done(f"train_{part}")


def compare(output: Path, size: Size, fps: float, done: Callable[[str], None], lpips: Path | None = None) -> dict:
  """Generates the unseen motion, compares it with the truth, writes videos and page, and returns the report."""
  from anchor_jax.inference.person import load  # imports JAX

  say("5/5 generating the unseen motion", flush=True)
  training, truth = open_prepared(output / "film"), open_prepared(output / "unseen")
  motion = read_motion(output / "unseen", frames=size.frames, camera="film")  # to compare with the film
  pairs = load(output / "person", head=True).animate(motion, with_body=True)
  pairs = tqdm(pairs, total=size.frames, desc="generate", unit="frame")
  frames, without_head = (np.stack(side) for side in zip(*pairs, strict=True))
  done("generate")

  write_video(output / "anchor.mp4", frames, fps, metadata={"comment": "synthetic: the anchor_jax demo"})
  with new_file(output / "contact_sheet.png") as path:
    cv2.imwrite(str(path), contact_sheet(truth, frames)[..., ::-1])
  with ComparisonPage(fps, output / "side_by_side.mp4") as page, new_file(output / "report.html") as path:
    without_head = without_head if size.head_steps != 0 else None
    measures = open_measures({} if lpips is None else {"lpips": lpips})
    report = evaluate(frames, truth, training, without_head, page, measures=measures)
    path.write_text(page.text(report))
  done("report")
  return report


def stage_clock() -> tuple[dict[str, float], Callable[[str], None]]:
  """Returns the seconds of each stage, and a function that is called at the end of each with its name."""
  start, stages = time.monotonic(), {}

  def done(stage: str) -> None:
    stages[stage] = round(time.monotonic() - start - sum(stages.values()), 1)

  return stages, done


def finish(output: Path, report: dict, stages: dict[str, float]) -> dict:
  """Adds the seconds of the stages to a report, and saves it."""
  report["seconds"] = {**stages, "total": round(sum(stages.values()), 1)}
  save_report(report, output / "report.json")
  return report


def check_demo(output: Path) -> None:
  """Checks that the demo only replaces files of an earlier demo; raises UserError for other files."""
  for name in ("film", "unseen", "anchor", "side_by_side"):
    check_output_file("--output", output / f"{name}.mp4", (".mp4",), is_synthetic)
  check_output_file("--output", output / "report.json", (".json",), is_report)
  check_output_file("--output", output / "report.html", (".html",), is_page)
  check_output_file("--output", output / "contact_sheet.png", (".png",), lambda _: (output / "anchor.mp4").exists())


def demo_config(file: str, part: str, data: Path, steps: int | None) -> RunConfig:
  """Returns the fine-tuning settings of a part on this data."""
  config = load_config(f"{file}:{part}")
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(data)))
  return config if steps is None else dataclasses.replace(config, steps=steps)


def contact_sheet(
  truth: PreparedSource, frames: UInt8[NdArray, "T H W 3"], columns: int = 8
) -> UInt8[NdArray, "h w 3"]:
  """Returns rows of pose, generated and true frames, at times spread over the clip."""
  chosen = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
  true = [truth.read(int(number), ("pose", "frame")) for number in chosen]
  strips = ([t["pose"] for t in true], [frames[n] for n in chosen], [t["frame"] for t in true])
  return np.concatenate([np.concatenate(strip, axis=1) for strip in strips], axis=0)


def record_demo(report: dict, section: str, row: str, file: Path | None) -> None:
  """Appends the figures of a demo's report, and the seconds of its stages, to the results."""
  contenders = ("generated", "texture_alone", "mean_training_frame", "nearest_pose_training_frame")
  figures = report_figures(report, f"{section}/{row}", contenders)
  seconds = {f"{section}-seconds/{row}/{stage}": (value, "s") for stage, value in report["seconds"].items()}
  append_results(figures | seconds, file)


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.demo", __doc__)
  parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR")
  parser.add_argument("--smoke", action="store_true", help="runs every stage briefly (the result is not pretty)")
  parser.add_argument("--film", type=Path, metavar="VIDEO", help="learn a real person from this film instead")
  parser.add_argument(
    "--size",
    default="128",
    metavar="WxH",
    help="video size in pixels, such as 128, 256, 512 or 128x192 (default: 128); with --film also auto, as for prepare",
  )
  landmarks_flag(parser, "a --film")
  parser.add_argument(
    "--steps", type=int, help="with --film: steps of fine-tuning (default: 400 at 128 pixels, else the config's)"
  )
  parser.add_argument(
    "--lpips",
    type=Path,
    metavar="FILE",
    help="with --film: weights of LPIPS (`convert lpips`), for a sharper person and for the report",
  )
  parser.add_argument(
    "--config",
    metavar="FILE.py",
    help="fine-tuning settings (default: studio_finetune.py; for 256 pixels studio_256.py, for 512 studio_512.py)",
  )
  record_flag(parser)
  args = parser.parse_args()
  pixels = parse_size(args.size)
  if args.film is None:
    if args.steps is not None:
      raise UserError("--steps works only with --film: --smoke makes the demo brief")
    if args.lpips is not None:
      raise UserError("--lpips works only with --film")
    if args.landmarks != "mediapipe":
      raise UserError("--landmarks works only with --film: the demo's own films have sidecars")
    if isinstance(pixels, AutoSize):
      raise UserError(f"--size={pixels}: the demo's own film has no shape of its own: give a number, or --film=VIDEO")
    if min(pixels) < min(CONFIGS):
      raise UserError(f"--size={pixels}: give sides of at least {min(CONFIGS)}; smaller ones need --film=VIDEO")
  elif args.steps is not None and args.steps < 1:
    raise UserError(f"--steps={args.steps}: at least 1")
  from anchor_jax.core.runtime import divide_cpu, enable_compilation_cache

  enable_compilation_cache()
  by_size = settings_for(pixels)
  size = SMOKE if args.smoke else Size()
  if args.film is not None:
    steps = args.steps or (None if args.config else FILM_STEPS.get(by_size))
    size = dataclasses.replace(size, body_steps=SMOKE.body_steps if args.smoke else steps)
  if by_size not in _WITH_HEAD:
    size = dataclasses.replace(size, head_steps=0)
  config = args.config or by_size
  parts = ("body", "head") if size.head_steps else ("body",)
  runs = [demo_config(config, part, args.output, getattr(size, f"{part}_steps")) for part in parts]
  divide_cpu(max(run.steps for run in runs), math.gcd(*(run.data.batch_size for run in runs)))
  prepare_parent(args.output)
  with locked(args.output):
    if args.film is not None:
      refuse_overwriting(args.output, [args.film])
      report = film_demo(args.film, args.output, size, pixels, config, args.lpips, args.landmarks)
    else:
      assert not isinstance(pixels, AutoSize), "refused above"
      report = demo(args.output, dataclasses.replace(size, pixels=pixels), config)
    if args.record or not (args.smoke or args.film):
      row = f"{'smoke-' * args.smoke}{pixels}-pixels"
      if args.film is None:
        record_demo(report, "demo", row, args.record)
      else:
        record_demo(report, "real", f"{row_of(args.film)}-{row}", args.record)
  say(f"\nThe new video:          {args.output / 'anchor.mp4'}")
  say(f"Pose, generated, truth: {args.output / 'side_by_side.mp4'}")
  say(f"At a glance:            {args.output / 'contact_sheet.png'}")
  say(f"All figures, curves:    {args.output / 'report.html'} and report.json\n")
  say(summary(report))


if __name__ == "__main__":  # rendering spawns processes that import this module
  run(main)
