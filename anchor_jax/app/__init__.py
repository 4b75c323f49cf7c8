"""The page on which a person makes herself: films in, training watched, videos out (`python -m anchor_jax.app`).

Gradio draws it (page.py), a web server brings it and the files to those who may see them (server.py), and a door
before both lets in what comes from the page itself, and takes uploads as they arrive (door.py, origins.py,
multipart.py). These alone import what the extra `app` installs. Below are what is shown (views.py, style.py), one
function for each thing that the page can do (workshop.py), the thread that does one job at a time (worker.py), what a
job runs (commands.py) and how far it is (progress.py), jobs as files that survive the server (jobs.py), uploads that
wait (intake.py) and those that are used (uploads.py), people and their folders (people.py), who may see them
(owners.py), how much room there is (quota.py), and which folders are the page's to empty (marks.py).
"""

from anchor_jax.app.command import main

__all__ = ["main"]
