"""Renders people and jobs as HTML; everything that users typed is escaped here."""

import html
from collections.abc import Mapping, Sequence

from anchor_jax.app.access.people import STUDIO, PersonRecord
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, PREPARE, STOPPING, TRAIN, VIDEO, Job
from anchor_jax.app.jobs.workshop import JobProgress

_ACTIVITIES = {PREPARE: "Preparing the film", TRAIN: "Training", VIDEO: "Making a video"}
Curves = Mapping[str, Sequence[tuple[int, float]]]


def queue(jobs: Sequence[JobProgress], owner: str, labels: Mapping[str, str]) -> str:
  """Returns the queue: the running job and the waiting ones; other owners' jobs are anonymous.

  Args:
    jobs: progress of all open jobs, in order.
    owner: the viewer.
    labels: labels of the people that the viewer sees, by name.
  """
  if not jobs:
    return '<div class="line quiet">Nothing is running. One job runs at a time.</div>'
  items = []
  for number, progress in enumerate(jobs):
    own = progress.job.owner in (owner, "")
    title = f"{_activity(progress.job)} · {safe(labels.get(progress.job.person, ''))}" if own else "Another user's job"
    status = _status(progress) if number == 0 else f"waiting, number {number + 1}"
    items.append(f'<li class="{"now" if number == 0 else ""}"><b>{title}</b><span>{status}</span></li>')
  return f'<ol class="line">{"".join(items)}</ol>'


def aside(reasons: Sequence[str]) -> str:
  """Returns the list of files that the page can't use; "" for none."""
  if not reasons:
    return ""
  lines = "".join(f"<li>{safe(reason)}</li>" for reason in reasons)
  return f'<div class="note warn">Set aside and left alone:<ul>{lines}</ul></div>'


def job_card(progress: JobProgress) -> str:
  """Returns a job's state: progress bar, time left and a cancel button, or its error; "" if it is done."""
  job = progress.job
  if job.state == FAILED:
    return f'<div class="note bad" role="alert">{safe(job.error)}</div>'
  if job.state == CANCELLED:
    return '<div class="note">Canceled.</div>'
  if job.state == DONE:
    return ""
  share = 0.0
  if job.state == STOPPING:
    title, status = "Stopping", "saving progress"
  elif progress.ahead:
    title, status = "Waiting", f"{progress.ahead} ahead of it"
  else:
    title, status = (progress.label or _activity(job)).capitalize(), _status(progress)
    share = progress.bar.share if progress.bar else 0.0
  cancel = "" if job.state == STOPPING else _button("Cancel", "cancel", job.name)
  return (
    f'<div class="job"><div class="head"><b>{safe(title)}</b><span>{status}</span>{cancel}</div>'
    f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}"><i style="width:{100 * share:.1f}%"></i>'
    "</div></div>"
  )


def found(person: PersonRecord, report: Sequence[str], ready: bool, job: JobProgress | None) -> str:
  """Returns the report of `prepare` on a person's film, with pictures; before that, the job's progress."""
  if not ready:
    return job_card(job) if job is not None else '<div class="note">The film is not prepared yet.</div>'
  lines = "".join(f"<li>{safe(text[:1].upper() + text[1:])}</li>" for text in report)
  consent = ""
  if person.real:
    consent = '<p class="quiet">Consent of the person in the film was confirmed.</p>'
  return (
    f'<div class="found"><h3>What was found</h3><ul>{lines}</ul>{consent}'
    f'<div class="pictures">{_picture(person, "found", "Frames of the film and the poses found in them")}'
    f"{_picture(person, 'appearance', 'Background, key frames and body texture; purple was never visible')}</div>"
    f'<p><a href="{_media(person, "report")}" target="_blank" rel="noopener">Full report: what is used, what is'
    " skipped and why</a></p></div>"
  )


def training(person: PersonRecord, curves: Curves, steps: int, job: JobProgress | None, preview: int) -> str:
  """Returns the training of a person: progress, loss curve, preview pictures.

  Args:
    person: the person.
    curves: from `progress.loss_curves`.
    steps: step of the newest checkpoint.
    job: the newest training job; None if there is none.
    preview: a number that changes with the preview picture; 0 if there is none.
  """
  card = "" if job is None else job_card(job)
  saved = ""
  if steps:
    saved = f'<p class="quiet">{steps} training steps are saved; videos use them.</p>'
  picture = ""
  if preview:
    picture = _picture(person, "training", "Pose, film and, below, the current result", f"?n={preview}")
  return f'<div class="training">{card}{_curve(curves)}{picture}{saved}</div>'


def making(jobs: Sequence[JobProgress]) -> str:
  """Returns the videos that are waiting or being generated."""
  return "".join(f"<h4>{safe(video_title(progress.job))}</h4>{job_card(progress)}" for progress in jobs)


def live(person: PersonRecord, job: Job | None) -> str:
  """Returns the player of a video that is being generated; the HTML never changes, so that playback continues."""
  if job is None:
    return ""
  source = f"{_media(person, job.name)}/live"
  return f'<video class="live" id="live-{job.name}" muted playsinline controls data-src="{source}"></video>'


def video_card(person: PersonRecord, progress: JobProgress) -> str:
  """Returns a finished video or its error, with buttons to download and delete it."""
  job = progress.job
  acts = _button("Delete", "remove", job.name, "Delete this video?")
  if job.state == DONE:
    source = _media(person, job.name)
    shown = f'<video controls loop playsinline src="{source}"></video>'
    acts = f'<a class="act" href="{source}?download=1" download>Download</a>{acts}'
  else:
    shown = job_card(progress)
  return (
    f'<article class="video" id="video-{job.name}"><h4>{safe(video_title(job))}</h4>{shown}'
    f'<div class="acts">{acts}</div></article>'
  )


def video_title(job: Job) -> str:
  """Returns a video's title: its motion, length and settings."""
  parts = [job.settings["label"], f"{job.settings['seconds']} s"]
  if job.person != STUDIO:
    parts.append("trained" if job.settings["trained"] else "before training")
  return ", ".join([*parts, *(["fast"] if job.settings["fast"] else [])])


def videos(cards: Sequence[str]) -> str:
  """Returns all videos of a person, from their cards."""
  if not cards:
    return '<div class="quiet">No video yet: choose a motion and press the button.</div>'
  return f'<div class="videos">{"".join(cards)}</div>'


def pair(person: PersonRecord, left: Job | None, right: Job | None) -> str:
  """Returns two videos side by side that play in sync."""
  if left is None or right is None:
    return '<div class="quiet">Choose two videos, such as one from before training and one from after it.</div>'
  sync = (
    "this.closest('.pair').querySelectorAll('video').forEach(v => "
    "{ if (v !== this) { v.currentTime = this.currentTime; %s } })"
  )
  sides = "".join(
    f'<figure><video controls loop muted playsinline src="{_media(person, job.name)}"'
    f' onplay="{sync % "v.play()"}" onpause="{sync % "v.pause()"}"></video>'
    f"<figcaption>{safe(video_title(job))}</figcaption></figure>"
    for job in (left, right)
  )
  return f'<div class="pair">{sides}</div>'


def export(person: PersonRecord, job: JobProgress | None, ready: bool) -> str:
  """Returns the progress of a person's export, or a download link."""
  card = "" if job is None else job_card(job)
  link = ""
  if ready and (job is None or not job.job.open):
    link = f'<a class="act" href="{_media(person, "bundle")}?download=1" download>Download the bundle</a>'
  return card + link


def _curve(curves: Curves) -> str:
  """The loss over training steps as SVG; "" for fewer than two points."""
  points = list(curves.get("loss", ()))
  if len(points) < 2:
    return ""
  width, height = 600, 160
  all_points = [point for curve in curves.values() for point in curve]
  first, last = points[0][0], max(step for step, _ in all_points)
  low, high = min(value for _, value in all_points), max(value for _, value in all_points)

  def path(curve: Sequence[tuple[int, float]]) -> str:
    x = lambda step: (step - first) / max(1, last - first) * (width - 20) + 10
    y = lambda value: (high - value) / ((high - low) or 1) * (height - 30) + 10
    return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)

  validation = curves.get("validation_loss", ())
  circles = "".join('<circle r="4" cx="{}" cy="{}"/>'.format(*point.split(",")) for point in path(validation).split())
  return (
    f'<figure class="curve"><svg viewBox="0 0 {width} {height}" role="img" aria-label="loss over {last} steps">'
    f'<polyline points="{path(points)}"/>{circles}</svg>'
    f"<figcaption>Loss, now {points[-1][1]:.3g} after {points[-1][0]} steps"
    f"{' (dots: on held-out frames)' if validation else ''}</figcaption></figure>"
  )


def _activity(job: Job) -> str:
  return _ACTIVITIES.get(job.kind, "Writing a bundle")


def _status(progress: JobProgress) -> str:
  """The progress of the current command, in words."""
  bar = progress.bar
  if bar is None:
    return "starting"
  left = "" if bar.left is None or bar.done == bar.total else f", {_clock(bar.left)} left"
  return f"{bar.done} of {bar.total}{left}"


def _clock(seconds: float) -> str:
  """A duration in words."""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _button(text: str, act: str, job: str, ask: str = "") -> str:
  question = f' data-ask="{safe(ask)}"' if ask else ""
  return f'<button class="act" type="button" data-act="{act}" data-job="{job}"{question}>{text}</button>'


def _picture(person: PersonRecord, what: str, caption: str, query: str = "") -> str:
  return (
    f'<figure><img loading="lazy" alt="{caption}" src="{_media(person, what)}{query}"><figcaption>{caption}'
    "</figcaption></figure>"
  )


def _media(person: PersonRecord, what: str) -> str:
  return f"/media/{person.name}/{what}"


def safe(text: str) -> str:
  """Returns a text with HTML markup escaped."""
  return html.escape(text)
