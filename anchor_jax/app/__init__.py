"""The page on which a person makes herself: films in, training watched, videos out (`python -m anchor_jax.app`).

Gradio draws it (page.py), a web server brings it and the files to those who may see them (server.py); both import what
the extra `app` installs, and nothing else does. Below are what is shown (views.py, style.py), one function for each
thing that the page can do (workshop.py), the thread that does one job at a time (worker.py), what a job runs
(commands.py) and how far it is (progress.py), jobs as files that survive the server (jobs.py), uploads (uploads.py),
people and their folders (people.py), and who may see them (owners.py).
"""

from anchor_jax.app.command import main

__all__ = ["main"]
