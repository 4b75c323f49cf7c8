"""Generates a clip with the bundle that contains this file: python BUNDLE/generate.py IN.npz OUT.npz [SEED].

In: `pose` uint8 [T H W 3]; with body/look_up.stablehlo also `surface` uint8 [T H W 3], the surface maps; optionally
`appearance` uint8 [H W 3] in place of body/appearance.npy, and `noise` float32 [h w C] in place of the seed's.
Out: `frames` uint8 [T H W 3], `latents` float32 [T h w C]. The body only, without the head's repainted face.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors.numpy import load_file

FORMAT, PICTURE = "anchor_jax bundle 1", "appearance.npy"


def open_bundle(folder):
  """Returns the body's settings, weights and functions. Raises ValueError or OSError for a damaged bundle."""
  config = json.loads((folder / "config.json").read_text())
  if not isinstance(config, dict) or config.get("format") != FORMAT:
    raise ValueError(f'{folder} is not a "{FORMAT}"')
  if config.pop("sha256", "") != hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest():
    raise ValueError(f"{folder}/config.json is damaged, export the bundle again")
  for name, listed in config["files"].items():
    with (folder / name).open("rb") as file:
      found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != listed["sha256"]:
      raise ValueError(f"{folder / name} is damaged, export the bundle again")
  if jax.__version_info__ < tuple(config["jax_at_least"]):
    raise ValueError(f"jax {jax.__version__} is too old for this bundle, written by {config['made_by']}")
  read = lambda name: export.deserialize(bytearray((folder / f"body/{name}.stablehlo").read_bytes())).call
  call = {name: jax.jit(read(name)) for name in config["parts"]["body"]["programs"]}
  return config["parts"]["body"], jax.device_put(load_file(folder / "body/weights.safetensors")), call


def plan_windows(body, length):
  """Returns, for the frames of all windows [K T]: their numbers, masks without padding, and weights in the mean."""
  window, overlap, tail = body["window"], body["overlap"], body["tail"]
  around = tail == "loop" and length > window
  end = {"ragged": length, "moved_back": max(1, length - overlap), "loop": length if around else 1}[tail]
  starts = np.arange(0, end, window - overlap)
  frames = np.arange(window) + np.minimum(starts, max(0, length - window) if tail == "moved_back" else length)[:, None]
  real, frames = (frames < length) | around, frames % length if around else np.minimum(frames, length - 1)
  raw, total = np.where(real, body["taper"], 0.0), np.zeros(length)
  np.add.at(total, frames, raw)
  return frames.astype(np.int32), real, (raw / total[frames]).astype(np.float32)


def check_target(source, target):
  """Returns the temporary path of the output. Raises ValueError if writing would overwrite other files."""
  partial = target.with_name(f"{target.stem}.partial.npz")
  if target.suffix != ".npz":
    raise ValueError(f"{target}: name a file that ends in .npz")
  if any(place.exists() and place.samefile(source) for place in (target, partial)):
    raise ValueError(f"writing {target} would overwrite the input {source}, choose another name")
  if target.exists():
    with np.load(target) as held:
      if not {"frames", "latents"} <= set(held):
        raise ValueError(f"{target} was not written by this script, choose another name or remove it")
  return partial


def main(folder, source, target, seed="0"):
  """Samples (mean of all windows' predictions, guidance, solver step; repeated), decodes and writes the clip."""
  partial = check_target(Path(source), Path(target))
  body, weights, call = open_bundle(folder)
  noise = jax.random.normal(jax.random.split(jax.random.key(int(seed)))[0], body["latent"])
  with np.load(source) as given:
    pose, surface, noise = given["pose"], given["surface" if "look_up" in call else "pose"], given.get("noise", noise)
    appearance = given["appearance"] if "appearance" in given else np.load(folder / "body" / PICTURE)
  shapes = [*pose.shape[1:], *noise.shape]
  if not pose.size or surface.shape != pose.shape or shapes != body["picture"] + body["latent"]:
    raise ValueError(f"{source}: pictures must be {body['picture']} and noise {body['latent']}")
  if not np.isfinite(noise).all():
    raise ValueError(f"{source}: the noise must be finite numbers")
  eights = lambda *frames: (tuple(x[i : i + 8] for x in frames) for i in range(0, len(pose), 8))
  pieces = lambda name, *frames: jnp.concatenate([call[name](weights, *eight) for eight in eights(*frames)])
  seen = [pose, pieces("look_up", surface)] if "look_up" in call else [pose]
  contexts = jnp.stack([call["image_tower"](weights, appearance[None])[0], weights["null_context"]])
  contexts, features, at = contexts[: body["branches"]], pieces("pose_stem", *seen), body["solver"]
  x = before = jnp.broadcast_to(noise, (len(pose), *noise.shape))
  for i, timestep in enumerate(at["timesteps"]):
    total = jnp.zeros((len(contexts), *x.shape))
    for frames, real, share in zip(*plan_windows(body, len(pose))):
      both = lambda array: jnp.broadcast_to(array, (len(contexts), *array.shape))  # the conditional and the null branch
      inputs = both(x[frames]), both(np.int32(timestep)), contexts, {"pose": both(features[frames])}, both(real)
      total = total.at[:, frames].add(call["denoiser"](weights, *inputs) * share[:, None, None, None])
    guided = total[-1] + at["guidance"][i] * (total[0] - total[-1])
    clean = at["clean_from_sample"][i] * x + at["clean_from_prediction"][i] * guided
    x, before = at["from_sample"][i] * x + at["from_clean"][i] * clean + at["from_previous"][i] * before, clean
  frames = pieces("refiner", pieces("decoder", x), *seen) if "refiner" in call else pieces("decoder", x)
  if not (jnp.isfinite(x).all() and jnp.isfinite(frames).all()):
    raise ValueError("the networks' pictures are not finite: use other noise, or export the person again")
  np.savez(partial, latents=x, frames=np.uint8(jnp.round(frames * 255)))
  partial.replace(target)


if __name__ == "__main__":
  try:
    main(Path(__file__).parent, *sys.argv[1:])
  except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
    print(f"error: {' '.join(str(error).split())[:300]}", file=sys.stderr)
    sys.exit(2)
