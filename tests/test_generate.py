"""`generate` from a motion to a file, with a person who needs no networks."""

import contextlib
import json

import av
import numpy as np
import pytest
from film_files import clicks_in, pictures, write_film
from parts import make_part

from anchor_jax import generate
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.motions import OpenMotion
from anchor_jax.inference.person import Person
from anchor_jax.inference.request import Request
from anchor_jax.motion.frames import Motion, MotionFrame

EMPTY = [*range(10), *range(20, 30), 44, 45]


def stub_motion(film):
  """The motion of a film of 60 frames; nobody is seen in `EMPTY`."""
  blank = np.zeros((48, 64, 3), np.uint8)
  frames = lambda first: (
    MotionFrame(blank + number, blank[..., :1], np.zeros((5, 2), np.float32)) for number in range(first, 60)
  )
  motion = Motion(25.0, FrameSize(64, 48), 60, frames, np.isin(np.arange(60), EMPTY))
  return OpenMotion(film, 25.0, 60, False, True, None, lambda *_: motion)


class GrayPerson(Person):
  """A person whose frames are uniform, twice as bright as the motion's; stops with an error before frame `stop`."""

  stop = None

  def animate(self, motion, appearance=None, seed=0, start=0, mesh=None, with_body=False):
    for number, frame in enumerate(motion.frames(start), start):
      if number == self.stop:
        raise KeyboardInterrupt
      yield 2 * frame.pose


@pytest.mark.parametrize("skip", [True, False])
def test_empty_stretches_are_cut_out_of_picture_and_sound_also_on_resume(tmp_path, monkeypatch, skip):
  """Clicks in frames 4, 15, 25, 35 and 50: those of frames that stay are heard with them, however often it resumes."""
  clicked = [4, 15, 25, 35, 50]
  clicks = [(frame + 0.5) / 25 for frame in clicked]
  film = write_film(tmp_path / "film.mp4", pictures(60), sound=("aac", 48000, clicks, 2.4))
  flags = ["x", "--checkpoint=runs/x", f"--motion={film}", f"--output={tmp_path}/out.mp4"]
  written = []
  for stops in ((None,), (27, None)):
    for stop in stops:
      resumed = ["--resume"] if len(stops) > 1 else []
      monkeypatch.setattr("sys.argv", [*flags, *resumed, *(["--skip-empty"] if skip else [])])
      args = generate.parse()
      person = GrayPerson(make_part("body"), None)
      object.__setattr__(person, "stop", stop)
      with contextlib.nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
        generate.follow_motion(Request(args, motion=stub_motion(film)), person, None)
      assert (tmp_path / "out.partial.mp4").exists() == (stop is not None)
    written.append((frames_of(tmp_path / "out.mp4"), clicks_in(tmp_path / "out.mp4")))
  kept = [number for number in range(60) if not skip or number not in EMPTY]
  for shown, heard in written:
    np.testing.assert_allclose(shown, 2 * np.array(kept), atol=2)
    assert heard == pytest.approx([(kept.index(frame) + 0.5) / 25 for frame in clicked if frame in kept], abs=0.02)
  with av.open(str(tmp_path / "out.mp4")) as file:
    assert float(file.duration / av.time_base) == pytest.approx(len(kept) / 25, abs=0.04)
    assert json.loads(file.metadata["comment"]).get("skip_empty", False) == skip


def frames_of(path):
  """The brightness of each frame."""
  with av.open(str(path)) as file:
    return [frame.to_ndarray(format="rgb24").mean() for frame in file.decode(video=0)]
