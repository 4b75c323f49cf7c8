"""The torch side of `accelerator.py`, with diffusers' own modules: SCRIPT STAGE TASK.json ANSWER.json."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "benchmarks")]

import diffusers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerator_draws import attention_tflops, draw, inputs, median_seconds, reason  # noqa: E402
from diffusers import ControlNetModel, UNet2DConditionModel  # noqa: E402
from peer_torch import BETAS, CLIP, DECAY, EPSILON, AllFrames, channels_first, pool_frames  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_COMPARED = 256  # numbers compared of each gradient


class Model:
  """UNet and pose branch of one size, and their inputs on the device."""

  def __init__(self, task: dict[str, Any], name: str, drawn: bool, window: bool):
    read = lambda role: json.loads((Path(task["folder"]) / f"{name}_{role}.json").read_text())
    with torch.device("cpu" if drawn else DEVICE):
      self.unet = UNet2DConditionModel.from_config(read("unet"))
      self.branch = ControlNetModel.from_config(read("controlnet"))
    if drawn:
      with torch.no_grad():
        for key, value in self.named().items():
          value.copy_(torch.from_numpy(draw(key, tuple(value.shape))))
    config = self.unet.config
    drawn_inputs = inputs(task, name, 50, config.cross_attention_dim, config.block_out_channels[0])
    pick = ("latents", "timesteps", "context", "pose")
    arrays = {key: drawn_inputs[f"window_{key}" if window else key] for key in pick} | {
      "target": drawn_inputs["target"]
    }
    spatial = ("latents", "pose", "target")
    of = lambda key, value: channels_first(value) if key in spatial else torch.from_numpy(value)
    self.inputs = {key: of(key, value).to(DEVICE) for key, value in arrays.items()}
    if window:
      frames = task["frames"]
      self.branch.controlnet_cond_embedding = torch.nn.Identity()
      self.unet.set_attn_processor(AllFrames())
      pool_frames(self.unet)
      pool_frames(self.branch)
      self.inputs["latents"], self.inputs["pose"] = self.inputs["latents"][0], self.inputs["pose"][0]
      self.inputs["timesteps"] = self.inputs["timesteps"].expand(frames)
      self.inputs["context"] = self.inputs["context"].expand(frames, -1, -1)
    for module in (self.unet, self.branch):
      module.to(DEVICE, memory_format=torch.channels_last)

  def named(self) -> dict[str, torch.nn.Parameter]:
    """All parameters, by the names of the JAX side."""
    modules = {"controlnet": self.branch, "unet": self.unet}
    return {f"{role}.{key}": value for role, module in modules.items() for key, value in module.named_parameters()}

  def predict(self) -> torch.Tensor:
    """The prediction, [B C H W]."""
    x, t, context, pose = (self.inputs[key] for key in ("latents", "timesteps", "context", "pose"))
    down, middle = self.branch(x, t, context, pose, return_dict=False)
    return self.unet(x, t, context, None, None, None, None, None, down, middle).sample

  def loss(self) -> torch.Tensor:
    """The mean squared error."""
    return torch.nn.functional.mse_loss(self.predict().float(), self.inputs["target"])


def wait() -> None:
  """Waits for the device."""
  if DEVICE == "cuda":
    torch.cuda.synchronize()


def peak_bytes() -> int | None:
  """The peak memory of tensors; None on CPUs."""
  return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


def equality(task: dict[str, Any]) -> dict[str, Any]:
  """Writes prediction, window, loss and gradients in float32 to a file."""
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
  last = lambda x: np.moveaxis(x.detach().cpu().numpy(), 1, -1)
  model = Model(task, "equality", drawn=True, window=False)
  loss = model.loss()
  loss.backward()
  named = model.named()
  gradients = [named[key].grad.contiguous().cpu().numpy().ravel()[:_COMPARED] for key in sorted(named)]
  arrays = {"forward": last(model.predict()), "loss": loss.detach().cpu().numpy()}
  with torch.no_grad():
    # The identity that replaces the stem has no parameters, so the window takes another model.
    arrays["window"] = last(Model(task, "equality", drawn=True, window=True).predict())
  file = Path(task["folder"]) / "equality_torch.npz"
  np.savez(file, gradients=np.concatenate(gradients), **arrays)
  return {"arrays": str(file), "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}}


def _timed(run: Any, compiled: Any, task: dict[str, Any]) -> dict[str, Any]:
  """Times in eager mode and compiled, if compiling works; peak memory in eager mode."""
  answer: dict[str, Any] = {"seconds": median_seconds(run, task["seconds"]), "peak_bytes": peak_bytes()}
  try:
    answer["compiled_seconds"] = median_seconds(compiled, task["seconds"])
  except Exception as error:  # noqa: BLE001  any error of the compiler is the reason
    answer["compiled_failed"] = f"compiled: {reason(error)}"
  return answer


def train_step(task: dict[str, Any]) -> dict[str, Any]:
  """Loss under autocast, gradients, clipping and fused AdamW."""
  kind = getattr(torch, task["dtype"])
  model = Model(task, "full", drawn=False, window=False)
  parameters = list(model.named().values())
  optimizer = torch.optim.AdamW(parameters, 1e-5, BETAS, EPSILON, DECAY, fused=DEVICE == "cuda")
  fast = torch.compile(model.loss)

  def step(loss: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(DEVICE, kind, enabled=kind != torch.float32):
      value = loss()
    value.backward()
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    optimizer.step()
    wait()

  return _timed(lambda: step(model.loss), lambda: step(fast), task)


def window(task: dict[str, Any]) -> dict[str, Any]:
  """One sampling call of a window, all in the compute type."""
  kind = getattr(torch, task["dtype"])
  model = Model(task, "full", drawn=False, window=True)
  model.unet.to(kind)
  model.branch.to(kind)
  model.inputs = {key: x.to(kind) if x.is_floating_point() else x for key, x in model.inputs.items()}
  fast = torch.compile(model.predict)

  def call(predict: Any) -> None:
    with torch.no_grad():
      predict()
    wait()

  return _timed(lambda: call(model.predict), lambda: call(fast), task)


def attentions(task: dict[str, Any]) -> dict[str, Any]:
  """Time of each of torch's kernels for each shape."""
  kinds = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
  kinds |= {"cudnn": SDPBackend.CUDNN_ATTENTION}
  found = []
  for shape in task["attention"]:
    for implementation, backend in kinds.items():
      one: dict[str, Any] = {"side": "torch", "shape": shape, "implementation": implementation}
      try:
        with sdpa_kernel(backend):
          one |= _attention(shape, getattr(torch, task["dtype"]), task["seconds"] / 10)
      except Exception as error:  # noqa: BLE001  reported: not every kernel runs here
        one["failed"] = reason(error)
      found.append(one)
  return {"attention": found}


def _attention(shape: list[int], kind: torch.dtype, seconds: float) -> dict[str, float]:
  batch, tokens, heads, width = shape
  operands = [torch.randn(batch, heads, tokens, width, device=DEVICE).to(kind) for _ in range(3)]
  attend = torch.nn.functional.scaled_dot_product_attention

  def forward() -> None:
    attend(*operands)
    wait()

  def both() -> None:
    leaves = [x.detach().requires_grad_() for x in operands]
    torch.autograd.grad(attend(*leaves).float().sum(), leaves)
    wait()

  spent = median_seconds(both, seconds)
  return {
    "forward_s": median_seconds(forward, seconds),
    "both_s": spent,
    "tflops": attention_tflops(shape, spent),
  }


STAGES = {"equality": equality, "train_step": train_step, "window": window, "attention": attentions}

if __name__ == "__main__":
  name, task_file, answer_file = sys.argv[1:]
  answer = STAGES[name](json.loads(Path(task_file).read_text()))
  Path(answer_file).write_text(json.dumps(answer))
