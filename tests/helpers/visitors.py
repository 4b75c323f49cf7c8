"""The page on a local port, and clients that it takes for browsers, for tests over HTTP."""

import dataclasses
import json
import os
import threading
import time

from anchor_jax.app.access.people import EVERYONE, STUDIO
from anchor_jax.app.access.uploads import Limits
from anchor_jax.app.jobs.workshop import Workshop


class Served:
  """A page on a local port; its worker is not started."""

  def __init__(self, folder, network=False, limits=None):
    import uvicorn

    from anchor_jax.app.access.origins import Origins
    from anchor_jax.app.access.owners import Gate
    from anchor_jax.app.server import listen, make_app

    self.shop = Workshop(folder, limits or Limits(megabytes=2), smoke=True)
    if self.shop.people.find(STUDIO) is None:
      studio = self.shop.people.new("Studio person", EVERYONE, "studio", 128)
      self.shop.people.add(dataclasses.replace(studio, films=("film_1.mp4",)))
      ready(self.shop, STUDIO)
    self.socket = listen("127.0.0.1", 0)
    self.port = self.socket.getsockname()[1]
    self.gate = Gate(folder, network, self.port)
    self.app = make_app(self.shop, self.gate, Origins("127.0.0.1", network))
    self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=1))
    self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
    self.thread.start()
    while not self.server.started:
      time.sleep(0.02)

  def stop(self):
    self.server.should_exit = True
    self.thread.join(timeout=10)
    self.socket.close()
    self.shop._lock.release()


class Visitor:
  """A client that the page takes for a browser."""

  def __init__(self, served, opens=True, **headers):
    import httpx

    self.served, self.session = served, os.urandom(6).hex()
    self.client = httpx.Client(base_url=f"http://127.0.0.1:{served.port}", headers=headers, timeout=20, trust_env=False)
    if opens:
      page = self.client.get("/")
      assert page.status_code == 200
      text = page.text[page.text.index("window.gradio_config = ") + len("window.gradio_config = ") :]
      self.config = json.JSONDecoder().raw_decode(text)[0]

  def upload(self, name, data):
    return self.client.post("/gradio_api/upload", files={"files": (name, data)})

  def token(self, name, data):
    answer = self.upload(name, data)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]

  def press(self, button, *data):
    """Presses a button; returns Gradio's final event, and the messages shown, as one text."""
    assert len(data) == self.inputs(button), f"{button} takes {self.inputs(button)} values"
    return self.trigger(lambda target: target[0] == self.named(button), *data)

  def inputs(self, button):
    """Number of values that a button sends."""
    return len(self.event(lambda target: target[0] == self.named(button))["inputs"])

  def look(self, who=STUDIO):
    """Requests an update as the page's timer does; returns the content shown, as one text."""
    return json.dumps(self.trigger(lambda target: target[1] == "load", who, None)[0]["output"]["data"])

  def event(self, is_it):
    (event,) = [one for one in self.config["dependencies"] if any(map(is_it, one["targets"]))]
    return event

  def trigger(self, is_it, *data):
    event = self.event(is_it)
    asked = {"data": list(data), "fn_index": event["id"], "session_hash": self.session, "event_data": None}
    answer = self.client.post("/gradio_api/queue/join", json=asked)
    assert answer.status_code == 200, answer.text
    boxes = []
    with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as events:
      for line in events.iter_lines():
        if line.startswith("data:"):
          message = json.loads(line[5:])
          if message["msg"] == "log":
            boxes.append(message["log"])
          if message["msg"] == "process_completed":
            return message, " ".join(boxes)
    raise AssertionError("the page said nothing")

  def named(self, name):
    return next(one["id"] for one in self.config["components"] if one["props"].get("elem_id") == name)


def ready(shop, name):
  folder = shop.people.folder_of(name) / "prepared"
  folder.mkdir(exist_ok=True)
  (folder / "meta.json").write_text("{}")


def file_of(token, name="film.mp4", **more):
  """A file as Gradio's page sends it."""
  return {"path": token, "orig_name": name, "meta": {"_type": "gradio.FileData"}, "is_stream": False, **more}
