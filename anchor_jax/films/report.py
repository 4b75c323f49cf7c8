"""Reports of `prepare` on its films: what was found, what is used, and what is skipped and why."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from anchor_jax.core.html import key, page, picture
from anchor_jax.films.clips import Film
from anchor_jax.films.stretches import BLURRED, CROWDED, DARK, GONE, OUTSIDE, SHORT, USED, Stretch, count_skipped
from anchor_jax.landmarks.tracks import only_columns
from anchor_jax.video.timing import tick_frames

REPORT = "report.html"
_MOVES = 0.005  # of the picture's width; a camera that moves less counts as fixed
_MAX_ROWS = 200  # per film in the page; meta.json has all stretches
_COLORS = {
  USED: "#3a8f5c", DARK: "#444a57", GONE: "#c98a2b", CROWDED: "#b5485d", BLURRED: "#8a63b8", SHORT: "#9aa3af",
  OUTSIDE: "#d9dde3",
}  # fmt: skip
_RULES = {
  USED: "becomes a clip; every cut starts a new one",
  DARK: "the brightest 5 % of pixels are below 40 of 255, for 0.2 s or more",
  GONE: "no person is found for 0.4 s or more",
  CROWDED: "another person is so close that no column of the picture separates the two",
  BLURRED: "less than 30 % of the shot's median detail, for 0.2 s or more",
  OUTSIDE: "outside the part that --part names",
  SHORT: "less than half a second between cuts or other skipped stretches",
}
_STYLE = """
.bar { display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden; margin: .6rem 0; background: #eee; }
.bar span { min-width: 1px; border-right: 1px solid #fff; }
"""
_BODY = """<p>{summary}</p>
{films}
<h2>Rules</h2>
<table><tbody>
{rules}
</tbody></table>"""


def film_facts(films: Sequence[Film]) -> list[dict[str, Any]]:
  """Returns the JSON entry of each film for meta.json; "clip" is an index into the folder's videos."""
  facts, clip = [], 0
  for film in films:
    stretches = []
    for stretch in film.stretches:
      stretches.append(
        {"first": stretch.first, "frames": len(stretch), "shot": stretch.shot, "left_out": stretch.reason}
      )
      if stretch.used:
        stretches[-1]["clip"] = clip
        clip += 1
    info = film.info
    facts.append(
      {
        "name": film.name,
        **{name: getattr(info, name) for name in ("width", "height", "fps", "frames", "missing", "hdr", "interlaced")},
        "rotation": info.geometry.turns,
        "mirrored": info.geometry.mirrored,
        "stored": list(info.geometry.stored),
        "bars": list(info.geometry.bars),
        "uneven": tick_frames(info) is not None,
        "shots": film.stretches[-1].shot + 1,
        "used": sum(len(stretch) for stretch in film.stretches if stretch.used),
        "left_out": count_skipped(film.stretches),
        "people": None
        if film.chosen is None
        else {"seen": film.chosen.count, "place": [round(part, 3) for part in film.chosen.place]},
        "guessed_hands": film.guessed and list(film.guessed),
        "camera": round(max(film.survey.camera(s.first, s.last) for s in film.stretches if s.used), 4),
        **({"camera_followed": True} if any(clip.cameras is not None for clip in film.clips) else {}),
        "stretches": stretches,
      }
    )
  return facts


def film_lines(facts: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns a line for each film with skipped or guessed frames or other notes."""
  lines = []
  for film in facts:
    sentences = [_usage(film)] if film["left_out"] or film["shots"] > 1 else []
    sentences += _notes(film)
    if sentences:
      lines.append(f"{film['name']}: {'; '.join(sentences)}")
  return lines


def _usage(film: Mapping[str, Any]) -> str:
  """Numbers of used and skipped frames, as a sentence."""
  skipped = ", ".join(f"{frames} {reason}" for reason, frames in film["left_out"].items())
  clips = sum("clip" in stretch for stretch in film["stretches"])
  used = f"{film['used']} of {film['frames']} frames are used, in {_number(clips, 'clip')}"
  return f"{used} from {_number(film['shots'], 'shot')}" + (f"; skipped: {skipped}" if skipped else "")


def _number(count: int, name: str) -> str:
  return f"{count} {name}{'' if count == 1 else 's'}"


def _notes(film: Mapping[str, Any]) -> list[str]:
  """Other notes on a film, one sentence each."""
  notes = []
  if film["missing"]:
    notes.append(f"its end is cut off: {film['missing']} frames are missing")
  if film["uneven"]:
    notes.append(f"its frame rate varies: resampled to {film['fps']:g} frames per second by its time stamps")
  if film["hdr"]:
    notes.append("it is HDR and was tone-mapped")
  if film["interlaced"]:
    notes.append("it is interlaced and was deinterlaced")
  if any(film["bars"]):
    left, top, right, bottom = film["bars"]
    notes.append(f"black bars are cropped: {left} columns left, {right} right, {top} rows above, {bottom} below")
  if film["people"]:
    x, y = film["people"]["place"]
    notes.append(
      f"{film['people']['seen']} people are visible at once: the one at {x:.2f},{y:.2f} is used (--person-at=x,y"
      " chooses another), and the columns of the others are masked"
    )
  if film["guessed_hands"] and any(film["guessed_hands"]):
    left, right = (100 * hands / film["used"] for hands in film["guessed_hands"])
    notes.append(
      f"the left hand is missing for long stretches in {left:.0f} % of the frames, the right hand in {right:.0f} %: the"
      " pose shows relaxed hands there"
    )
  if film["camera"] >= _MOVES:
    moves = f"the camera moves by {100 * film['camera']:.1f} % of the picture's width"
    notes.append(
      f"{moves}; the room is followed and stands still in new videos"
      if film.get("camera_followed")
      else f"{moves}: use a tripod for a sharp background"
    )
  return notes


def film_report(person: str, films: Sequence[Film]) -> str:
  """Returns the report on all films as one self-contained HTML page."""
  facts = film_facts(films)
  used, frames = (sum(film[name] for film in facts) for name in ("used", "frames"))
  summary = f"{used} of {frames} frames of {_number(len(films), 'film')} are used."
  bodies = [clip.measures for film in films for clip in film.clips]
  cloth = next((body.cloth for body in bodies if body is not None and body.cloth is not None), None)
  if cloth is not None:
    sentence = cloth.summary()
    summary += f" {sentence[0].upper()}{sentence[1:]}."
  rules = "\n".join(
    f"<tr><td>{_key(reason)}{reason or 'used'}</td><td>{rule}</td></tr>" for reason, rule in _RULES.items()
  )
  parts = "\n".join(_section(film, entry) for film, entry in zip(films, facts))
  return page(f"Films of {person}", _BODY.format(summary=summary, films=parts, rules=rules), _STYLE)


def _key(reason: str) -> str:
  return key(_COLORS[reason])


def _section(film: Film, facts: Mapping[str, Any]) -> str:
  info = film.info
  bar = "".join(
    f'<span style="flex:{len(stretch)};background:{_COLORS[stretch.reason]}" title="{_when(stretch, info.fps)}:'
    f' {stretch.reason or "used"}"></span>'
    for stretch in film.stretches
  )
  size = f"{info.width} x {info.height} pixels, {info.fps:g} frames per second, {info.frames / info.fps:.1f} s"
  shown = film.stretches[:_MAX_ROWS]
  rows = "\n".join(_row(film, stretch, entry.get("clip")) for stretch, entry in zip(shown, facts["stretches"]))
  rest = len(film.stretches) - len(shown)
  return f"""<section>
<h2>{html.escape(film.name)}</h2>
<p>{size}. {_usage(facts)}.</p>
{"".join(f'<p class="note">{note[0].upper()}{note[1:]}.</p>' for note in _notes(facts))}
<div class="bar">{bar}</div>
<table><thead><tr><th></th><th>seconds</th><th>frames</th><th>shot</th><th></th></tr></thead><tbody>
{rows}
</tbody></table>
{f"<p>And {rest} more, listed in meta.json.</p>" if rest else ""}
</section>"""


def _when(stretch: Stretch, fps: float) -> str:
  return f"{stretch.first / fps:.1f} to {stretch.last / fps:.1f} s"


def _row(film: Film, stretch: Stretch, clip: int | None) -> str:
  picture = _thumbnail(film, stretch)
  outcome = f"used: clip {clip}" if clip is not None else f"skipped: {stretch.reason}"
  fps = film.info.fps
  return (
    f"<tr><td>{picture}</td><td>{stretch.first / fps:.1f} to {stretch.last / fps:.1f}</td><td>{len(stretch)}</td>"
    f"<td>{stretch.shot + 1}</td><td>{_key(stretch.reason)}{outcome}</td></tr>"
  )


def _thumbnail(film: Film, stretch: Stretch) -> str:
  """The thumbnail nearest to the stretch's middle; "" if it contains none."""
  inside = [number for number in film.survey.thumbnails if stretch.first <= number < stretch.last]
  if not inside:
    return ""
  middle = (stretch.first + stretch.last) / 2
  nearest = min(inside, key=lambda number: abs(number - middle))
  return picture(_dimmed(film, nearest), "jpeg", _when(stretch, film.info.fps))


def _dimmed(film: Film, number: int) -> bytes:
  """The thumbnail of a frame as a JPEG file, with the columns of other people darkened."""
  file = film.survey.thumbnails[number]
  if film.chosen is None:
    return file
  small = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
  assert small is not None
  first, end = np.round(film.chosen.columns[number] * small.shape[1] / film.info.width).astype(int).tolist()
  shown = np.where(only_columns(np.ones_like(small), first, end, 0), small, small // 4)
  return cv2.imencode(".jpg", shown)[1].tobytes()
