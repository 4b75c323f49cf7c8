"""Frames a second of a trained person that follows a film, without reading landmarks, compiling and writing the video.

    python benchmarks/frames.py --person=runs/ana --motion=dance.mp4 [--frames=32] [--record]

The film is read, rendered and generated twice; the second time counts. With --record the figures go into results/.
"""

import argparse
import resource
import time

import anchor_jax as aj
from anchor_jax.evaluation.results import append_results


def seconds(person: aj.Person, motion: aj.Motion, frames: int) -> tuple[float, float]:
  """Seconds, and seconds of processor time, from the first frame to frame number `frames`."""
  pictures = person.animate(motion, seed=0)
  next(pictures)
  wall, processor = time.monotonic(), time.process_time()
  for _, _ in zip(range(frames), pictures, strict=False):
    pass
  return time.monotonic() - wall, time.process_time() - processor


def main() -> None:
  """Prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--person", required=True, metavar="DIR", help="workdir of a person; the body alone is used")
  parser.add_argument("--motion", required=True, metavar="FILM", help="film or prepared folder, longer than --frames")
  parser.add_argument("--frames", type=int, default=32)
  parser.add_argument("--record", action="store_true", help="append the figures to results/")
  parser.add_argument("--note", default="", help="of the figures, such as what else the machine did")
  options = parser.parse_args()
  person = aj.load(options.person, head=False)
  motion = aj.read_motion(options.motion, measures=person.measures, size=person.size)
  seconds(person, motion, 8)  # compiles
  wall, processor = seconds(person, motion, options.frames)
  row = f"speed/generate-{person.size}-pixels"
  figures = {
    f"{row}/frames_per_second": (round(options.frames / wall, 2), "frames/s"),
    f"{row}/cpu_per_frame": (round(1000 * processor / options.frames, 1), "ms"),
    f"{row}/memory": (round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2), "GiB"),
  }
  for what, (value, unit) in figures.items():
    print(what, value, unit)
  if options.record:
    append_results(figures, note=options.note)


if __name__ == "__main__":
  main()
