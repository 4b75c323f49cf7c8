"""What the page shows of people and jobs, as HTML. Whatever a user typed is escaped here."""

import html
from collections.abc import Mapping, Sequence

from anchor_jax.app.access.people import STUDIO, Person
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, PREPARE, STOPPING, TRAIN, VIDEO, Job
from anchor_jax.app.jobs.workshop import Place

_DOING = {PREPARE: "Looking at the film", TRAIN: "Learning", VIDEO: "Making a video"}
Curves = Mapping[str, Sequence[tuple[int, float]]]


def line(places: Sequence[Place], owner: str, labels: Mapping[str, str]) -> str:
  """The line of jobs: what runs now, and who waits; other owners' jobs without their names.

  Args:
    places: of all open jobs, in order.
    owner: who looks.
    labels: of the people she sees, by name.
  """
  if not places:
    return '<div class="line quiet">Nothing is running. One job runs at a time.</div>'
  items = []
  for number, place in enumerate(places):
    mine = place.job.owner in (owner, "")
    what = f"{_doing(place.job)} · {safe(labels.get(place.job.person, ''))}" if mine else "Somebody else's job"
    when = _now(place) if number == 0 else f"waits, place {number + 1}"
    items.append(f'<li class="{"now" if number == 0 else ""}"><b>{what}</b><span>{when}</span></li>')
  return f'<ol class="line">{"".join(items)}</ol>'


def aside(reasons: Sequence[str]) -> str:
  """What was found in the page's folder and could not be read; nothing where there is none."""
  if not reasons:
    return ""
  lines = "".join(f"<li>{safe(why)}</li>" for why in reasons)
  return f'<div class="note warn">Set aside, and left as it is:<ul>{lines}</ul></div>'


def job_card(place: Place) -> str:
  """A job that waits, runs, failed or was cancelled: bar, time left, and a button that cancels it."""
  job = place.job
  if job.state == FAILED:
    return f'<div class="note bad" role="alert">{safe(job.error)}</div>'
  if job.state == CANCELLED:
    return '<div class="note">Cancelled.</div>'
  if job.state == DONE:
    return ""
  if job.state == STOPPING:
    title, share, told = "Stopping", 0.0, "what was done is saved"
  elif place.ahead:
    title, share, told = "Waiting", 0.0, f"{place.ahead} before this"
  else:
    title, share, told = (place.label or _doing(job)).capitalize(), place.bar.share if place.bar else 0.0, _now(place)
  cancel = "" if job.state == STOPPING else _button("Cancel", "cancel", job.name)
  return (
    f'<div class="job"><div class="head"><b>{safe(title)}</b><span>{told}</span>{cancel}</div>'
    f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}"><i style="width:{100 * share:.1f}%"></i>'
    "</div></div>"
  )


def found(person: Person, told: Sequence[str], ready: bool, job: Place | None) -> str:
  """What `prepare` found of a person, and what it dropped."""
  if not ready:
    return job_card(job) if job is not None else '<div class="note">Her film is not looked at yet.</div>'
  lines = "".join(f"<li>{safe(text[:1].upper() + text[1:])}</li>" for text in told)
  consent = ""
  if person.real:
    consent = '<p class="quiet">It was confirmed that the person in the film agrees to this.</p>'
  return (
    f'<div class="found"><h3>What was found</h3><ul>{lines}</ul>{consent}'
    f'<div class="pictures">{_picture(person, "found", "Frames of the film and the poses found in them")}'
    f"{_picture(person, 'appearance', 'Her room, key frames and texture; purple was never seen')}</div>"
    f'<p><a href="{_media(person, "report")}" target="_blank" rel="noopener">The whole report: what is used, what is'
    " left out and why</a></p></div>"
  )


def training(person: Person, curves: Curves, steps: int, job: Place | None, preview: int) -> str:
  """The training of a person: bar, loss curve, preview pictures.

  Args:
    person: who learns.
    curves: of `progress.loss_curves`.
    steps: that are kept.
    job: the newest training, None where there was none.
    preview: number that changes with the preview picture; 0 where there is none.
  """
  card = "" if job is None else job_card(job)
  kept = ""
  if steps:
    kept = f'<p class="quiet">{steps} steps are kept; videos of her use them.</p>'
  picture = ""
  if preview:
    picture = _picture(person, "training", "Pose, film and, below, what she looks like now", f"?n={preview}")
  return f'<div class="training">{card}{_curve(curves)}{picture}{kept}</div>'


def making(places: Sequence[Place]) -> str:
  """The videos that wait or are being made."""
  return "".join(f"<h4>{safe(video_title(place.job))}</h4>{job_card(place)}" for place in places)


def live(person: Person, job: Job | None) -> str:
  """The player of a video that is being made: the same HTML all the while, so that it goes on playing."""
  if job is None:
    return ""
  source = f"{_media(person, job.name)}/live"
  return f'<video class="live" id="live-{job.name}" muted playsinline controls data-src="{source}"></video>'


def video_card(person: Person, place: Place) -> str:
  """A video that is done, or why it isn't, and what can be done with it."""
  job = place.job
  acts = _button("Delete", "remove", job.name, "Delete this video?")
  if job.state == DONE:
    source = _media(person, job.name)
    shown = f'<video controls loop playsinline src="{source}"></video>'
    acts = f'<a class="act" href="{source}?download=1" download>Download</a>{acts}'
  else:
    shown = job_card(place)
  return (
    f'<article class="video" id="video-{job.name}"><h4>{safe(video_title(job))}</h4>{shown}'
    f'<div class="acts">{acts}</div></article>'
  )


def video_title(job: Job) -> str:
  """What a video is called: its motion, and whether she was trained by then."""
  told = [job.settings["label"], f"{job.settings['seconds']} s"]
  if job.person != STUDIO:
    told.append("trained" if job.settings["trained"] else "before training")
  return ", ".join([*told, *(["fast"] if job.settings["fast"] else [])])


def videos(cards: Sequence[str]) -> str:
  """All videos of a person."""
  if not cards:
    return '<div class="quiet">No video yet: choose a motion and press the button.</div>'
  return f'<div class="videos">{"".join(cards)}</div>'


def pair(person: Person, left: Job | None, right: Job | None) -> str:
  """Two videos side by side, which play together."""
  if left is None or right is None:
    return '<div class="quiet">Choose two videos, for instance one from before training and one from after.</div>'
  together = (
    "this.closest('.pair').querySelectorAll('video').forEach(v => "
    "{ if (v !== this) { v.currentTime = this.currentTime; %s } })"
  )
  sides = "".join(
    f'<figure><video controls loop muted playsinline src="{_media(person, job.name)}"'
    f' onplay="{together % "v.play()"}" onpause="{together % "v.pause()"}"></video>'
    f"<figcaption>{safe(video_title(job))}</figcaption></figure>"
    for job in (left, right)
  )
  return f'<div class="pair">{sides}</div>'


def export(person: Person, job: Place | None, ready: bool) -> str:
  """The bundle of a person: how far it is, and its download."""
  card = "" if job is None else job_card(job)
  link = ""
  if ready and (job is None or not job.job.open):
    link = f'<a class="act" href="{_media(person, "bundle")}?download=1" download>Download the bundle</a>'
  return card + link


def _curve(curves: Curves) -> str:
  """The loss over the steps as a picture; nothing for fewer than two points."""
  points = list(curves.get("loss", ()))
  if len(points) < 2:
    return ""
  wide, tall = 600, 160
  every = [point for curve in curves.values() for point in curve]
  first, last = points[0][0], max(step for step, _ in every)
  low, high = min(value for _, value in every), max(value for _, value in every)

  def path(curve: Sequence[tuple[int, float]]) -> str:
    across = lambda step: (step - first) / max(1, last - first) * (wide - 20) + 10
    down = lambda value: (high - value) / ((high - low) or 1) * (tall - 30) + 10
    return " ".join(f"{across(step):.1f},{down(value):.1f}" for step, value in curve)

  held = curves.get("validation_loss", ())
  circles = "".join('<circle r="4" cx="{}" cy="{}"/>'.format(*point.split(",")) for point in path(held).split())
  return (
    f'<figure class="curve"><svg viewBox="0 0 {wide} {tall}" role="img" aria-label="loss over {last} steps">'
    f'<polyline points="{path(points)}"/>{circles}</svg>'
    f"<figcaption>Loss, now {points[-1][1]:.3g} after {points[-1][0]} steps"
    f"{' (dots: on frames she does not learn from)' if held else ''}</figcaption></figure>"
  )


def _doing(job: Job) -> str:
  return _DOING.get(job.kind, "Writing a bundle")


def _now(place: Place) -> str:
  """How far the command that runs is, in words."""
  bar = place.bar
  if bar is None:
    return "starting"
  left = "" if bar.left is None or bar.done == bar.total else f", {_clock(bar.left)} left"
  return f"{bar.done} of {bar.total}{left}"


def _clock(seconds: float) -> str:
  """A length of time in words."""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _button(text: str, act: str, job: str, ask: str = "") -> str:
  asked = f' data-ask="{safe(ask)}"' if ask else ""
  return f'<button class="act" type="button" data-act="{act}" data-job="{job}"{asked}>{text}</button>'


def _picture(person: Person, what: str, caption: str, query: str = "") -> str:
  return (
    f'<figure><img loading="lazy" alt="{caption}" src="{_media(person, what)}{query}"><figcaption>{caption}'
    "</figcaption></figure>"
  )


def _media(person: Person, what: str) -> str:
  return f"/media/{person.name}/{what}"


def safe(text: str) -> str:
  """Returns a text with what HTML would take for markup escaped."""
  return html.escape(text)
