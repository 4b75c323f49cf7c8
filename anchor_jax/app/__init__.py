"""The web page for training a person and making videos (`python -m anchor_jax.app`).

page.py builds the page in Gradio, and server.py serves it together with people's files. access/door.py filters every
request before Gradio and receives uploads (with access/origins.py and access/multipart.py). Only these modules import
packages of the extra `app`. views.py, player.py and style.py render HTML; jobs/ queues and runs the package's commands;
access/ decides who may see, send and store what.
"""

from anchor_jax.app.command import main

__all__ = ["main"]
