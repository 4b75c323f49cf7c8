"""Two halves of one film, prepared apart, show the same body."""

import dataclasses
import itertools

import numpy as np
import pytest
from films import FPS, disc_shot

from anchor_jax.films import clips as clips_module
from anchor_jax.films.clips import Findings, read_films
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.survey import survey
from anchor_jax.landmarks.proportions.widths import Widths
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.texture.texels import LEVELS, TEXELS
from anchor_jax.video.read import probe, read_frames

FRAMES, SECOND, SHARED = 40, 14, 20
SIDE = 64


@pytest.fixture(scope="module")
def halves(tmp_path_factory, standing_track):
  """The first 26 frames and the last 26 of a film whose person lifts an arm out of the picture and leans forward."""
  folder, full = tmp_path_factory.mktemp("halves"), standing_track(FRAMES, (SIDE, SIDE))
  body, face, hands = full.body.copy(), full.face.copy(), full.hands.copy()
  for frame in range(FRAMES):
    out = np.float32([2.0 * max(frame - 10, 0), -0.5 * max(frame - 10, 0), 0])
    body[frame, [13]] += out / 2
    body[frame, [15, 17, 19]] += out
    hands[frame, 0] += out
    body[frame, :11] += (0, 0.05 * frame, 0)
    face[frame] = (
      (face[frame] - face[frame, 4]) * (1 + 0.003 * frame) + face[frame, 4] + np.float32([0, 0.05 * frame, 0])
    )
  track = dataclasses.replace(full, body=body, face=face, hands=hands, fps=float(FPS))
  found = []
  for first, last in ((0, FRAMES - SECOND), (SECOND, FRAMES)):
    path = folder / f"from_{first}.mp4"
    write_posed_video(path, disc_shot(1, FRAMES)[first:last], FPS)
    path.with_suffix(".anchor").rename(folder / f"away_{first}")
    info = probe(path)
    found.append((OpenedFilm(path, info, None), Findings(survey(read_frames(path), FPS), track.slice(first, last))))
  return found


def surface_of(half, number, **options):
  film, found = half
  ((clip,),) = ([*film.clips] for film in read_films([film], [found], size=SIDE, person="ann", **options))
  return next(itertools.islice(clip.frames, number, None)).surface, clip.measures


def test_the_second_half_with_the_body_of_the_first_has_the_same_surface_map(halves, monkeypatch):
  wide = Widths(torso=(1.5,) * 5 + (1.2, 1.0), shoulder=1.4, neck=1.2)
  monkeypatch.setattr(clips_module, "fit_body", lambda body, films: dataclasses.replace(body, widths=wide))
  first, body = surface_of(halves[0], SHARED)
  assert body.upper_arm is not None
  monkeypatch.setattr(clips_module, "fit_body", lambda body, films: dataclasses.replace(body, widths=Widths()))
  second, same = surface_of(halves[1], SHARED - SECOND, body=body)
  assert same.to_json() | {"place": 0} == body.to_json() | {"place": 0}
  assert (first[..., 0] == second[..., 0]).mean() > 0.998
  shared = (first[..., 0] > 0) & (first[..., 0] == second[..., 0])
  assert np.abs(first.astype(int) - second)[shared][:, 1:].max() <= LEVELS / TEXELS
  alone, own = surface_of(halves[1], SHARED - SECOND)
  assert own.upper_arm is None or own.upper_arm != body.upper_arm
  assert (first[..., 0] == alone[..., 0]).mean() < 0.98
