"""Builds HTML pages that are one self-contained file each."""

import base64
import html

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430;
  background: #fff; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #e3e6ea; vertical-align: middle; }}
td img {{ display: block; border-radius: 3px; }}
.key {{ display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .45rem; }}
.note {{ background: #fff6e0; border-left: 4px solid #e0a020; padding: .35rem .7rem; margin: .4rem 0; }}
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, body: str, style: str = "") -> str:
  """Returns the text of an HTML file.

  Args:
    title: plain text.
    body: HTML below the title.
    style: CSS in addition to that of all pages.
  """
  return _PAGE.format(title=html.escape(title), body=body, style=style.lstrip())


def key(color: str) -> str:
  """Returns a small colored square for legends."""
  return f'<span class="key" style="background:{color}"></span>'


def picture(data: bytes, kind: str, alt: str) -> str:
  """Returns an image element with inline data; `kind` is "jpeg" or "png"."""
  return f'<img alt="{html.escape(alt)}" src="{_inside(data, f"image/{kind}")}">'


def video(data: bytes) -> str:
  """Returns a player of an MP4 file with inline data."""
  return f'<video controls loop muted playsinline src="{_inside(data, "video/mp4")}"></video>'


def _inside(data: bytes, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
