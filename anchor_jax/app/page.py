"""The page in Gradio: input goes to the workshop, and results come back as HTML."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchor_jax.app import views
from anchor_jax.app.access.owners import Gate
from anchor_jax.app.access.people import FILMS, SHAPES, SIZES, STUDIO, NotFound, PersonRecord, picture_size
from anchor_jax.app.access.uploads import SIDECAR_FILES, has_landmark_model, without_paths
from anchor_jax.app.jobs.queue import DONE, EXPORT, PREPARE, TRAIN, Job
from anchor_jax.app.jobs.workshop import SECONDS, Workshop
from anchor_jax.app.player import PLAY_LIVE
from anchor_jax.app.style import ON_CLICK
from anchor_jax.core.errors import UserError
from anchor_jax.studio.performances import MOTIONS

_QUIET = {"show_progress": "hidden", "api_visibility": "private"}
_TICK = 1.0  # seconds between updates
_CONCURRENCY = 4  # simultaneous presses of one button
_UPLOAD = "upload"
_SIZES = {
  128: "Quick: 128 pixels, a few minutes of training",
  256: "Fine: 256 pixels, 15 minutes of training",
  512: "Large: 512 pixels, half an hour of training",
}
_SHAPES = {
  "square": "Square",
  "film": "As filmed",
  "portrait": "Portrait, as a phone films",
  "landscape": "Landscape",
}
_CONSENT = "This is me, or the person in the film has agreed to be shown in videos that were never filmed."
_FAST, _BEFORE = ("Fast, slightly softer", "fast"), ("As before training", "before")
_NO_MODEL = (
  '<div class="note warn">The landmark model, which finds poses in films, is not installed: run <code>make'
  " landmarks</code> once. Until then, use the studio person, a studio film, or films with their sidecars.</div>"
)
_BROKEN = "something went wrong unexpectedly; the page's operator finds the reason in its log"
_HELP = (
  "A minute of film with a fixed camera and constant light, from head to waist, with moving hands. It stays on this "
  "machine. Videos are marked as synthetic in their metadata; please keep the mark."
)


class Page:
  """The page of a workshop.

  Attributes:
    blocks: the Gradio application.
  """

  def __init__(self, shop: Workshop, gate: Gate):
    """Takes the workshop and the object that identifies browsers."""
    self._shop, self._gate = shop, gate
    self._gr: Any = importlib.import_module("gradio")
    # Gradio rejects values that its server has not offered, which after a restart are all values on open pages; the
    # workshop validates them instead. Files arrive as tokens (door.py), which Gradio must not touch: it would copy each
    # file, and run FFmpeg on camera recordings.
    for kind in ("Dropdown", "Radio", "CheckboxGroup", "File", "Video", "Slider", "Textbox", "Checkbox"):
      getattr(self._gr, kind).preprocess = _unprocessed
    forbid_files(self._gr)
    self.blocks = self._build()

  # ---- layout --------------------------------------------------------------------------------------------------------

  def _build(self) -> Any:
    gr = self._gr
    with gr.Blocks(title="Anchor", analytics_enabled=False) as blocks:
      gr.HTML(
        "<h1>Anchor</h1><p>Film yourself for a minute, and turn any motion into a video of you.</p>",
        elem_id="title",
      )
      self._aside = gr.HTML("", elem_id="aside")
      self._queue = self._html("line")
      self._who = gr.Dropdown([], label="Person", elem_id="who", filterable=False)
      with gr.Tabs():
        with gr.Tab("Video"):
          self._video_tab()
        with gr.Tab("Training"):
          self._person_tab()
        with gr.Tab("New"):
          self._new_tab()
        with gr.Tab("Compare"):
          self._compare_tab()
        with gr.Tab("More"):
          self._more_tab()
      self._seen = gr.State({})
      self._shown = [
        self._aside,
        self._queue,
        self._making,
        self._live,
        self._videos,
        self._found,
        self._training,
        self._bundle,
        self._pair,
      ]
      self._choices = [self._who, self._motion, self._how, self._left, self._right]
      everything = [*self._shown, *self._choices, self._seen]
      refresh = dict(inputs=[self._who, self._seen], outputs=everything, **_QUIET)
      blocks.load(self._event(self._refresh), **refresh)
      self._who.change(self._event(self._refresh), **refresh)
      gr.Timer(_TICK).tick(self._event(self._refresh), **refresh, concurrency_limit=8)
    return blocks

  def _html(self, name: str) -> Any:
    """An HTML component whose buttons trigger `_pressed`."""
    component = self._gr.HTML("", elem_id=name, js_on_load=ON_CLICK)

    def pressed(request: Any, event: Any) -> None:
      self._safely(lambda: self._pressed(request, event._data), None)

    pressed.__annotations__ |= {"request": self._gr.Request, "event": self._gr.EventData}
    component.click(pressed, **_QUIET, concurrency_limit=_CONCURRENCY)
    return component

  def _films(self, label: str, name: str) -> tuple[Any, Any]:
    """Two inputs for a film: files and the camera."""
    gr = self._gr
    kinds = [*FILMS, *sorted({Path(file).suffix for file in SIDECAR_FILES})]
    files = gr.File(label=label, file_count="multiple", file_types=kinds, elem_id=name, height=140)
    with gr.Accordion("or record with the camera", open=False):
      camera = gr.Video(sources=["webcam"], show_label=False, webcam_options=gr.WebcamOptions(mirror=False))
    return files, camera

  def _video_tab(self) -> None:
    gr = self._gr
    self._motion = gr.Radio([], label="Motion", elem_id="motion")
    with gr.Column(visible=False) as upload:
      files, camera = self._films("Film of the motion", "motion-film")
    self._motion.change(lambda motion: gr.update(visible=motion == _UPLOAD), self._motion, upload, **_QUIET)
    with gr.Row():
      seconds = gr.Slider(*SECONDS, value=4, step=1, label="Maximum seconds", elem_id="seconds")
      self._how = gr.CheckboxGroup([], label="Options", elem_id="how")
    make = gr.Button("Make the video", variant="primary", elem_id="make")
    self._making = self._html("making")
    self._live = gr.HTML("", elem_id="live", js_on_load=PLAY_LIVE)
    self._videos = self._html("videos")
    inputs = [self._who, self._motion, seconds, self._how, files, camera]
    self._on(make, self._make_video, inputs, [files, camera])

  def _person_tab(self) -> None:
    self._found = self._html("found")
    train = self._gr.Button("Train, or continue training", variant="primary", elem_id="train")
    self._training = self._html("training")
    self._on(train, self._train, [self._who], [])

  def _new_tab(self) -> None:
    gr = self._gr
    gr.HTML("" if has_landmark_model() else _NO_MODEL)
    gr.HTML(f'<p class="quiet">{_HELP}</p>')
    label = gr.Textbox(label="Name", max_length=40, elem_id="name", placeholder="shown only to you")
    files, camera = self._films("Film (and its sidecar's files, if it has one)", "film")
    size = gr.Radio([(text, size) for size, text in _SIZES.items()], value=SIZES[0], label="Size", elem_id="size")
    shape = gr.Radio(
      [(text, shape) for shape, text in _SHAPES.items()], value=SHAPES[0], label="Shape", elem_id="shape"
    )
    consent = gr.Checkbox(label=_CONSENT, elem_id="consent")
    add = gr.Button("Add this person", variant="primary", elem_id="add")
    example = gr.Button("Try a studio film instead", elem_id="example")
    cleared = [label, files, camera, consent, self._who]
    self._on(add, self._add, [label, files, camera, size, shape, consent], cleared)
    self._on(example, self._add_example, [label, size, shape], cleared)

  def _compare_tab(self) -> None:
    gr = self._gr
    with gr.Row():
      self._left = gr.Dropdown([], label="Left", elem_id="left", filterable=False)
      self._right = gr.Dropdown([], label="Right", elem_id="right", filterable=False)
    self._pair = gr.HTML("", elem_id="pair")
    for side in (self._left, self._right):
      side.input(self._event(self._compare), [self._who, self._left, self._right], self._pair, **_QUIET)

  def _more_tab(self) -> None:
    gr = self._gr
    gr.HTML('<p class="quiet">A bundle generates videos of this person with JAX alone, without this package.</p>')
    export = gr.Button("Export a bundle", elem_id="export")
    self._bundle = self._html("bundle")
    gr.HTML('<p class="quiet">Deleting permanently removes films, training, videos and the bundle of this person.</p>')
    sure = gr.Checkbox(label="Yes, delete this person and all related files", elem_id="sure")
    delete = gr.Button("Delete", variant="stop", elem_id="delete")
    self._on(export, self._export, [self._who], [])
    self._on(delete, self._delete, [self._who, sure], [sure, self._who])

  def _on(self, button: Any, act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    """Connects a button to an action; an error is shown as a message and changes no output."""
    gr = self._gr

    def guarded(request: Any, *values: Any) -> Any:
      unchanged = [gr.skip() for _ in outputs] if len(outputs) != 1 else gr.skip()
      return self._safely(lambda: act(self._owner(request), *values), unchanged)

    limit = {"concurrency_limit": _CONCURRENCY}  # so that one visitor's large film does not block all others
    button.click(self._event(guarded), inputs, outputs or None, api_visibility="private", **limit)

  def _safely(self, act: Callable[[], Any], otherwise: Any) -> Any:
    """Result of a function; if it fails, shows a message, logs unexpected errors, and returns `otherwise`."""
    try:
      return act()
    except UserError as error:
      self._gr.Warning(views.safe(without_paths(str(error))), duration=12)
    except Exception:
      logging.getLogger(__name__).exception("a button's work failed")
      self._gr.Warning(_BROKEN, duration=12)
    return otherwise

  def _event(self, act: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a Gradio callback that also receives the browser's request, by its type annotation."""

    def called(request: Any, *values: Any) -> Any:
      return act(request, *values)

    called.__annotations__["request"] = self._gr.Request
    return called

  # ---- events: all values come from a browser and may be anything ----------------------------------------------------

  def _owner(self, request: Any) -> str:
    owner = self._gate.owner(dict(request.cookies))
    if owner is None:
      raise UserError("this page needs a cookie to identify you: allow cookies and reload the page")
    return owner

  def _make_video(self, owner: str, who: Any, motion: Any, seconds: Any, how: Any, *files: Any) -> Any:
    uploaded, how = _tokens(*files) if motion == _UPLOAD else [], how if isinstance(how, list) else []
    options = {"trained": "before" not in how, "fast": "fast" in how}
    length = seconds if isinstance(seconds, int | float) else 0
    self._shop.make_video(owner, _text(who), _text(motion), length, uploaded=uploaded, **options)
    return None, None

  def _train(self, owner: str, who: Any) -> None:
    self._shop.train(owner, _text(who))

  def _add(self, owner: str, label: Any, files: Any, camera: Any, size: Any, shape: Any, consent: Any) -> Any:
    pictures, tokens = picture_size(size, shape), _tokens(files, camera)
    return self._added(owner, self._shop.add_person(owner, _text(label), tokens, consent is True, pictures))

  def _add_example(self, owner: str, label: Any, size: Any, shape: Any) -> Any:
    size = picture_size(size, SHAPES[0] if shape == "film" else shape)  # a studio film is rendered in any shape
    return self._added(owner, self._shop.add_example(owner, _text(label), size))

  def _added(self, owner: str, person: PersonRecord) -> Any:
    self._gr.Info(f"{views.safe(person.label)} was added: see Training")
    return "", None, None, False, self._people(owner, person.name)

  def _export(self, owner: str, who: Any) -> None:
    self._shop.export(owner, _text(who))

  def _delete(self, owner: str, who: Any, sure: Any) -> Any:
    if sure is not True:
      raise UserError("check the box first: deleting can't be undone")
    self._shop.remove_person(owner, _text(who))
    self._gr.Info("Deleted")
    return False, self._people(owner, STUDIO)

  def _pressed(self, request: Any, pressed: dict[str, Any]) -> None:
    """Handles a button inside our HTML."""
    name = pressed.get("act") if isinstance(pressed, dict) else None
    act = {"cancel": self._shop.cancel, "remove": self._shop.remove_video}.get(_text(name))
    if act is not None:
      act(self._owner(request), _text(pressed.get("job")))

  def _compare(self, request: Any, who: Any, left: Any, right: Any) -> str:
    try:
      owner = self._owner(request)
      person = self._shop.people.get(_text(who), owner)
    except UserError:
      return ""
    done = {job.name: job for job in self._done(owner, person)}
    return views.pair(person, done.get(_text(left)), done.get(_text(right)))

  # ---- updates -------------------------------------------------------------------------------------------------------

  def _refresh(self, request: Any, who: Any, seen: Any) -> list[Any]:
    """Updates of everything that changes by itself; skips what this browser already shows."""
    try:
      owner = self._owner(request)
      return self._updates(owner, self._chosen(owner, who), who, seen)
    except UserError as error:
      message = str(error)
    except Exception:
      logging.getLogger(__name__).exception("the page can't be shown")
      message = _BROKEN
    note, others = f'<div class="note bad">{views.safe(message)}</div>', len(self._shown) + len(self._choices) - 1
    return [note, *[self._gr.skip()] * others, {}]

  def _updates(self, owner: str, person: PersonRecord, who: Any, seen: dict[str, Any]) -> list[Any]:
    shop, gr = self._shop, self._gr
    queue = [shop.progress(job) for job in shop.jobs.queue()]
    people, done = shop.people.visible(owner), self._done(owner, person)
    videos = [shop.progress(job) for job in shop.videos(owner, person)]
    live = [video.job for video in videos if video.job.open and self._has_partial(video.job)]
    aside = [one for one in shop.aside() if one.owner == owner or owner == self._gate.local_owner]
    shown = {
      "aside": views.aside([without_paths(one.reason.replace(f"{shop.folder}/", "")) for one in aside]),
      "line": views.queue(queue, owner, {each.name: each.label for each in people}),
      "making": views.making([video for video in reversed(videos) if video.job.open]),
      "live": views.live(person, live[-1] if live else None),
      "videos": views.videos([views.video_card(person, video) for video in videos if not video.job.open]),
      "found": views.found(
        person, shop.report_lines(owner, person), shop.is_ready(person), self._newest(owner, person, PREPARE)
      ),
      "training": self._training_of(owner, person),
      "bundle": self._bundle_of(owner, person),
      "pair": views.pair(person, *((done[-1], done[0]) if done else (None, None))),
    }
    others = [each for each in people if each.kind != "studio" and each.name != person.name and shop.is_ready(each)]
    motions = [(motion.label, f"studio:{name}") for name, motion in MOTIONS.items()]
    motions += [(f"As {each.label}", f"person:{each.name}") for each in others]
    titles = [(views.video_title(job), job.name) for job in done]
    choices = {
      "who": ([(each.label, each.name) for each in people], person.name),
      "motion": ([*motions, ("My own film", _UPLOAD)], "studio:calm"),
      "how": ([_FAST, *([_BEFORE] if shop.trained_steps(person) else [])], []),
      "left": (titles, titles[-1][1] if titles else None),
      "right": (titles, titles[0][1] if titles else None),
    }
    updates = [text if seen.get(name) != text else gr.skip() for name, text in shown.items()]
    for name, (options, value) in choices.items():
      unchanged = value == who if name == "who" else name == "motion" and name in seen  # keeps the user's selection
      if seen.get(name) == options and (unchanged or name != "who"):
        updates.append(gr.skip())
      elif unchanged:
        updates.append(gr.update(choices=options))
      else:
        updates.append(gr.update(choices=options, value=value))
    return [*updates, {**shown, **{name: options for name, (options, _) in choices.items()}}]

  def _chosen(self, owner: str, who: Any) -> PersonRecord:
    """The selected person; the studio person if that one does not exist (anymore)."""
    try:
      return self._shop.people.get(_text(who) or STUDIO, owner)
    except NotFound:
      return self._shop.people.get(STUDIO, owner)

  def _people(self, owner: str, chosen: str) -> Any:
    people = self._shop.people.visible(owner)
    return self._gr.update(choices=[(person.label, person.name) for person in people], value=chosen)

  def _newest(self, owner: str, person: PersonRecord, kind: str) -> Any:
    jobs = self._shop.jobs.of(person.name, owner, kind)
    return self._shop.progress(jobs[0]) if jobs else None

  def _done(self, owner: str, person: PersonRecord) -> list[Job]:
    return [job for job in self._shop.videos(owner, person) if job.state == DONE]

  def _has_partial(self, job: Job) -> bool:
    return self._shop.live(job.owner, job.person, job.name)[0].exists()

  def _training_of(self, owner: str, person: PersonRecord) -> str:
    shop = self._shop
    try:
      preview = shop.file(owner, person.name, "training").stat().st_mtime_ns // 10**6
    except (NotFound, FileNotFoundError):
      preview = 0
    job = self._newest(owner, person, TRAIN)
    return views.training(person, shop.curves(person), shop.trained_steps(person), job, preview)

  def _bundle_of(self, owner: str, person: PersonRecord) -> str:
    try:
      ready = self._shop.file(owner, person.name, "bundle").is_file()
    except NotFound:
      ready = False
    return views.export(person, self._newest(owner, person, EXPORT), ready)


def _unprocessed(_: Any, value: Any) -> Any:
  """A component's value as the browser sent it."""
  return value


def _text(value: Any) -> str:
  """The value if it is text, else ""."""
  return value if isinstance(value, str) else ""


def _tokens(files: Any, camera: Any) -> list[str]:
  """The tokens of uploaded and recorded films."""
  several = files if isinstance(files, list) else [files]
  return [token for token in (*several, camera) if isinstance(token, str) and token]


def forbid_files(gradio: Any) -> None:
  """Makes Gradio refuse any file path or URL sent by a browser, since it would read whatever this machine can."""

  def refuse(_: Any, name: Any) -> None:
    if name is not None:
      raise gradio.Error("this page accepts only uploads")

  async def refuse_async(block: Any, name: Any) -> None:
    refuse(block, name)

  for kind in (gradio.File, gradio.Video):
    kind.api_info = lambda _: {"type": "string"}
    # Gradio's file model has a path; Gradio re-creates components during a session and sets the attribute again.
    kind.data_model = property(lambda _: None, lambda _, model: None)
  block: Any = importlib.import_module("gradio.blocks").Block
  block.move_resource_to_block_cache, block.async_move_resource_to_block_cache = refuse, refuse_async
