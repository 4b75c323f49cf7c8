"""The torch and diffusers side of `against_torch.py`, as a process; `rows.py` documents its requests and answers.

The modules are diffusers' own. For windows of frames, the UNet is changed to match ours: self-attention over all frames
at once, and GroupNorm pooled over frames in residual blocks and before the output.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

# Waiting threads must sleep: with other programs on the machine, spinning makes torch up to ten times slower.
os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_VERBOSITY="error", OMP_WAIT_POLICY="PASSIVE")

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D

BETAS, EPSILON, DECAY, CLIP = (0.9, 0.999), 1e-8, 1e-2, 1.0  # as in anchor_jax.config.run.OptimizerConfig


class AllFrames(AttnProcessor2_0):
  """Self-attention over the tokens of all frames as one sequence."""

  def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
    """The attended states of all frames."""
    if encoder_hidden_states is not None:
      return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
    shape = hidden_states.shape
    return super().__call__(attn, hidden_states.reshape(1, -1, shape[-1]), None, *args, **kwargs).reshape(shape)


class PooledNorm(torch.nn.GroupNorm):
  """GroupNorm whose statistics pool over the batch, which holds the frames of one clip."""

  def forward(self, x):
    """The normalized frames."""
    clip = x.transpose(0, 1)[None]
    y = torch.nn.functional.group_norm(clip, self.num_groups, self.weight, self.bias, self.eps)
    return y[0].transpose(0, 1)


def pool_frames(module: torch.nn.Module) -> None:
  """Makes the norms of residual blocks, and the norm before the output, pool over frames."""
  for part in module.modules():
    if isinstance(part, ResnetBlock2D):
      part.norm1.__class__ = part.norm2.__class__ = PooledNorm
  if hasattr(module, "conv_norm_out"):
    module.conv_norm_out.__class__ = PooledNorm


def channels_first(x: np.ndarray) -> torch.Tensor:
  """[... H W C] as a tensor [... C H W]."""
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, -3)))


def channels_last(x: torch.Tensor) -> np.ndarray:
  """[... C H W] as an array [... H W C]."""
  return np.moveaxis(x.detach().numpy(), -3, -1)


def read(file: Path) -> dict[str, np.ndarray]:
  """The arrays of an .npz file."""
  with np.load(file) as arrays:
    return dict(arrays)


class Decode:
  """The autoencoder's decoder on a batch of latents."""

  def __init__(self, folder: Path):
    self.module = AutoencoderKL.from_pretrained(folder / "vae").eval()
    self.latents = channels_first(read(folder / "decode.npz")["latents"])
    self.call = self.decode

  def decode(self):
    """Unclipped pictures."""
    with torch.no_grad():
      return self.module.decode(self.latents, return_dict=False)[0]

  def outputs(self):
    """The arrays to compare."""
    return {"pictures": channels_last(self.call())}


class Denoise:
  """UNet and pose branch on a batch of frames, or on one clip (`window`) whose pose is already embedded."""

  def __init__(self, folder: Path, window: bool):
    arrays = read(folder / ("window.npz" if window else "forward.npz"))
    self.unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    self.branch = ControlNetModel.from_pretrained(folder / "controlnet").eval()
    self.latents, self.pose = channels_first(arrays["latents"]), channels_first(arrays["pose"])
    self.timesteps, self.context = torch.from_numpy(arrays["timesteps"]), torch.from_numpy(arrays["context"])
    if window:
      self.branch.controlnet_cond_embedding = torch.nn.Identity()
      self.unet.set_attn_processor(AllFrames())
      pool_frames(self.unet)
      pool_frames(self.branch)
      frames = self.latents.shape[1]
      self.latents, self.pose = self.latents[0], self.pose[0]
      self.timesteps, self.context = self.timesteps.expand(frames), self.context.expand(frames, -1, -1)
    self.call = self.forward

  def predict(self):
    """The prediction."""
    down, middle = self.branch(self.latents, self.timesteps, self.context, self.pose, return_dict=False)
    return self.unet(self.latents, self.timesteps, self.context, None, None, None, None, None, down, middle).sample

  def forward(self):
    """The prediction without gradients."""
    with torch.no_grad():
      return self.predict()

  def outputs(self):
    """The arrays to compare."""
    return {"prediction": channels_last(self.call())}


class TrainStep(Denoise):
  """Loss, gradients, clipping and AdamW; the first step has a learning rate of 0, as in a warm-up."""

  def __init__(self, folder: Path):
    super().__init__(folder, window=False)
    self.target = channels_first(read(folder / "forward.npz")["target"])
    self.named = {f"{name}.{key}": p for name in ("controlnet", "unet") for key, p in self._module(name)}
    self.optimizer = torch.optim.AdamW(self.named.values(), 0.0, BETAS, EPSILON, DECAY)
    self.call = self.step

  def _module(self, name):
    return (self.unet if name == "unet" else self.branch).named_parameters()

  def loss(self):
    """The mean squared error."""
    return torch.nn.functional.mse_loss(self.predict(), self.target)

  def step(self):
    """One optimizer step; returns the loss before it."""
    self.optimizer.zero_grad(set_to_none=True)
    loss = self.loss()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.named.values(), CLIP)
    self.optimizer.step()
    return loss.detach()

  def outputs(self):
    """The loss, and the clipped gradients of all parameters in the order of their names."""
    loss = self.call()
    gradients = [self.named[name].grad.numpy().ravel() for name in sorted(self.named)]
    for group in self.optimizer.param_groups:
      group["lr"] = 1e-5
    return {"loss": loss.numpy(), "gradients": np.concatenate(gradients)}


KINDS = {
  "train_step": TrainStep,
  "forward": lambda folder: Denoise(folder, window=False),
  "window": lambda folder: Denoise(folder, window=True),
  "decode": Decode,
}


def compile_work(work) -> str | None:
  """Sets work.compiled and runs it twice; returns the reason if that fails, otherwise None."""
  try:
    if isinstance(work, TrainStep):
      work.loss, eager = torch.compile(work.loss), work.loss
      for _ in range(2):
        work.step()
      fast, work.loss = work.loss, eager

      def compiled():
        work.loss = fast
        work.step()
        work.loss = eager

      work.compiled = compiled
    else:
      work.compiled = torch.compile(work.call)
      for _ in range(2):
        work.compiled()
  except Exception as error:  # noqa: BLE001  any error of the compiler is the reason
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
  return None


def main() -> None:
  """Answers requests until the input ends."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--threads", type=int, required=True)
  torch.set_num_threads(parser.parse_args().threads)
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # keeps output of libraries out of the answers
  work = None
  for line in sys.stdin:
    request, answer = json.loads(line), {}
    try:
      if request["do"] == "load":
        work = KINDS[request["kind"]](Path(request["folder"]))
      elif request["do"] == "output":
        np.savez(request["file"], **work.outputs())
      elif request["do"] == "compile":
        answer["reason"] = compile_work(work)
      elif request["do"] == "product":
        a, b = torch.randn(request["size"], request["size"]), torch.randn(request["size"], request["size"])
        times = []
        for _ in range(8):
          started = time.perf_counter()
          a @ b
          times.append(time.perf_counter() - started)
        answer["seconds"] = min(times)
      else:
        run = work.compiled if request["compiled"] else work.call
        started = time.perf_counter()
        run()
        answer["seconds"] = time.perf_counter() - started
    except Exception as error:  # noqa: BLE001  reported to the parent process
      answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main()
