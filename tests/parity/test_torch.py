"""The networks against the torch classes, with weights converted in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPVisionModel
from transformers import CLIPTextConfig as TorchTextConfig
from transformers import CLIPVisionConfig as TorchVisionConfig

from anchor_jax.evaluation.networks import clip_measure
from anchor_jax.formats.diffusers import load_model, save_model
from anchor_jax.formats.registry import make_module
from anchor_jax.models.clip import DEVIATION, MEAN, preprocess

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def unet_fields(attention, widths, **fields):
  """Keyword arguments of a UNet; `attention` says for each level whether it attends."""
  kinds = [CROSS if attends else PLAIN for attends in attention]
  return {
    "block_out_channels": widths,
    "down_block_types": tuple(kind.format("Down") for kind in kinds),
    "up_block_types": tuple(kind.format("Up") for kind in reversed(kinds)),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "sample_size": 8,
    **fields,
  }


UNETS = {
  "stable diffusion 1": unet_fields((1, 1, 1, 0), (8, 16, 24, 24), layers_per_block=2, attention_head_dim=4),
  "stable diffusion 2": unet_fields(
    (1, 1, 0), (8, 16, 16), attention_head_dim=(1, 2, 4), use_linear_projection=True, upcast_attention=True
  ),
  "head": unet_fields((1, 0), (8, 12), in_channels=9, attention_head_dim=2, layers_per_block=1),
  "uneven": unet_fields(
    (0, 1, 1), (8, 8, 16), layers_per_block=(1, 2, 1), transformer_layers_per_block=(1, 2, 1), attention_head_dim=4,
    out_channels=6, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-4,
  ),
}  # fmt: skip


def inputs(seed, channels, size=(8, 8), count=2):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return draw(count, channels, *size), np.array([1, 999])[:count], draw(count, 5, 12)


def tensors(*arrays):
  return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def to_jax(x, timesteps, context):
  return jnp.asarray(np.moveaxis(x, 1, -1))[:, None], jnp.asarray(timesteps, jnp.int32), jnp.asarray(context)


def channels_last(x):
  return np.moveaxis(x.numpy(), 1, -1)


def loaded(module, folder, jit):
  """The network of this package with the weights that a torch module saved."""
  module.save_pretrained(folder)
  model = load_model(folder)
  network, params = make_module(model.config), {"params": model.params}
  return lambda *arrays, **options: jit(lambda p, *x: network.apply(p, *x, **options))(params, *arrays)


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_unet(name, size, tmp_path, jit, randomize, agree):
  module = randomize(UNet2DConditionModel(**UNETS[name]), len(name))
  arrays = inputs(0, module.config.in_channels, size)
  x, timesteps, context = tensors(*arrays)
  with torch.no_grad():
    expected = module(x, timesteps, context).sample
  agree(loaded(module, tmp_path, jit)(*to_jax(*arrays))[:, 0], channels_last(expected))


@pytest.mark.parametrize("name", ["stable diffusion 1", "stable diffusion 2", "uneven"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_controlnet_and_the_unet_it_steers(name, order, tmp_path, jit, randomize, agree):
  fields = {key: value for key, value in UNETS[name].items() if key not in ("up_block_types", "sample_size")}
  if isinstance(fields.get("layers_per_block"), tuple):
    fields["layers_per_block"] = 1
  unet = randomize(UNet2DConditionModel(**UNETS[name] | {"layers_per_block": fields.get("layers_per_block", 2)}), 1)
  fields = {key: value for key, value in fields.items() if key != "out_channels"}
  branch = randomize(
    ControlNetModel(
      **fields, conditioning_embedding_out_channels=(4, 8, 8), controlnet_conditioning_channel_order=order
    ),
    2,
  )
  arrays = inputs(3, 4)
  pose = np.random.default_rng(4).uniform(size=(2, 3, 32, 32)).astype(np.float32)
  x, timesteps, context, image = tensors(*arrays, pose)
  with torch.no_grad():
    expected = branch(x, timesteps, context, image, conditioning_scale=1.7, return_dict=False)
    down, middle = expected
    steered = unet(x, timesteps, context, None, None, None, None, None, down, middle).sample
  own_branch, own_unet = loaded(branch, tmp_path / "branch", jit), loaded(unet, tmp_path / "unet", jit)
  features = own_branch(jnp.asarray(np.moveaxis(pose, 1, -1))[:, None], method="embed_pose")
  got_down, got_middle = own_branch(*to_jax(*arrays), features, scale=1.7)
  for got, want in zip((*got_down, got_middle), (*down, middle), strict=True):
    agree(got[:, 0], channels_last(want))
  agree(own_unet(*to_jax(*arrays), None, got_down, got_middle)[:, 0], channels_last(steered))


VAES = {
  "four levels": {"block_out_channels": (4, 8, 8, 8), "layers_per_block": 2},
  "three levels": {"block_out_channels": (8, 12, 16), "latent_channels": 3},
  "without extras": {
    "block_out_channels": (4, 8), "use_quant_conv": False, "use_post_quant_conv": False,
    "mid_block_add_attention": False,
  },
}  # fmt: skip


@pytest.mark.parametrize("name", VAES)
def test_autoencoder(name, tmp_path, jit, randomize, agree):
  fields = VAES[name]
  levels = len(fields["block_out_channels"])
  kinds = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
  module = randomize(AutoencoderKL(**fields, **kinds, norm_num_groups=4), 5)
  image = np.random.default_rng(6).uniform(-1, 1, (2, 3, 24, 16)).astype(np.float32)
  with torch.no_grad():
    posterior = module.encode(torch.from_numpy(image)).latent_dist
    decoded = module.decode(posterior.mean).sample
  network = loaded(module, tmp_path, jit)
  mean, log_variance = network(jnp.asarray(np.moveaxis(image, 1, -1)), method="encode")
  agree(mean, channels_last(posterior.mean))
  agree(log_variance, channels_last(posterior.logvar))
  agree(network(mean, method="decode"), channels_last(decoded))


TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_towers(activation, tmp_path, jit, randomize, agree):
  rng = np.random.default_rng(7)
  vision = TorchVisionConfig(**TOWER, image_size=24, patch_size=6, hidden_act=activation)
  module = randomize(CLIPVisionModel(vision), 8)
  pixels = rng.normal(size=(2, 3, 24, 24)).astype(np.float32)
  with torch.no_grad():
    expected = module(torch.from_numpy(pixels)).last_hidden_state
  agree(loaded(module, tmp_path / "vision", jit)(jnp.asarray(np.moveaxis(pixels, 1, -1))), expected.numpy())

  text = TorchTextConfig(**TOWER, vocab_size=30, max_position_embeddings=20, hidden_act=activation)
  module = randomize(CLIPTextModel(text), 9)
  ids = rng.integers(0, 30, (2, 11))
  with torch.no_grad():
    expected = module(torch.from_numpy(ids)).last_hidden_state
  agree(loaded(module, tmp_path / "text", jit)(jnp.asarray(ids, jnp.int32)), expected.numpy())


@pytest.mark.parametrize("kind", [UNet2DConditionModel, ControlNetModel, AutoencoderKL, CLIPVisionModel, CLIPTextModel])
def test_torch_classes_load_saved_weights(kind, tmp_path, jit, agree):
  """The torch class finds every key in the saved folder and computes the same."""
  sd = {
    key: value for key, value in UNETS["stable diffusion 2"].items() if key not in ("up_block_types", "sample_size")
  }
  module = {
    UNet2DConditionModel: lambda: UNet2DConditionModel(**UNETS["stable diffusion 2"]),
    ControlNetModel: lambda: ControlNetModel(**sd, conditioning_embedding_out_channels=(4, 8, 8)),
    AutoencoderKL: lambda: AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
    CLIPVisionModel: lambda: CLIPVisionModel(TorchVisionConfig(**TOWER, image_size=24, patch_size=6)),
    CLIPTextModel: lambda: CLIPTextModel(TorchTextConfig(**TOWER, vocab_size=30)),
  }[kind]()
  module.save_pretrained(tmp_path / "torch")
  model = load_model(tmp_path / "torch")
  rng = np.random.default_rng(10)
  draw = lambda x: (rng.normal(size=x.shape) * (0.1 if x.ndim < 2 else np.prod(x.shape[:-1]) ** -0.5)).astype(
    np.float32
  )
  params = unflatten_dict({path: draw(leaf) for path, leaf in flatten_dict(model.params).items()})
  save_model(tmp_path / "own", model.config, params)
  module, info = kind.from_pretrained(tmp_path / "own", output_loading_info=True)
  assert not any(info.values()), info

  network = make_module(model.config)
  apply = lambda *x, **options: jit(lambda p, *x: network.apply({"params": p}, *x, **options))(params, *x)
  arrays = inputs(11, 4)
  x, timesteps, context = tensors(*arrays)
  pixels = rng.normal(size=(2, 3, 24, 24)).astype(np.float32)
  with torch.no_grad():
    if kind is UNet2DConditionModel:
      agree(apply(*to_jax(*arrays))[:, 0], channels_last(module(x, timesteps, context).sample))
    elif kind is ControlNetModel:
      pose = rng.uniform(size=(2, 3, 32, 32)).astype(np.float32)
      features = apply(jnp.asarray(np.moveaxis(pose, 1, -1))[:, None], method="embed_pose")
      expected = module(x, timesteps, context, torch.from_numpy(pose), return_dict=False)[1]
      agree(apply(*to_jax(*arrays), features)[1][:, 0], channels_last(expected))
    elif kind is AutoencoderKL:
      image = jnp.asarray(np.moveaxis(pixels, 1, -1))
      agree(apply(image), channels_last(module(torch.from_numpy(pixels)).sample))
    elif kind is CLIPVisionModel:
      image = jnp.asarray(np.moveaxis(pixels, 1, -1))
      agree(apply(image), module(torch.from_numpy(pixels)).last_hidden_state.numpy())
    else:
      ids = rng.integers(0, 30, (2, 11))
      agree(apply(jnp.asarray(ids, jnp.int32)), module(torch.from_numpy(ids)).last_hidden_state.numpy())


@pytest.mark.parametrize("shape", [(300, 224), (101, 350), (224, 224), (57, 80)])
def test_preprocessing_of_pictures_is_within_a_gray_level(shape):
  image = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), np.uint8)
  expected = CLIPImageProcessorPil()(image, return_tensors="np")["pixel_values"][0]
  got = jax.jit(preprocess)(jnp.asarray(image, jnp.float32)[None] / 255)[0]
  gray = lambda pixels: (np.asarray(pixels) * DEVIATION + np.asarray(MEAN)) * 255
  assert np.abs(gray(got) - gray(np.moveaxis(expected, 0, -1))).max() < 1.01


def test_clip_similarity(tmp_path):
  rng = np.random.default_rng(12)
  # The tower's own size: resizing rounds to gray levels, and the last digits of a sum would decide some of them.
  true = rng.integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
  videos = np.clip(true + rng.normal(0, 40, true.shape), 0, 255).astype(np.uint8), true
  tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
  text, vision = tower | {"vocab_size": 30}, tower | {"image_size": 32, "patch_size": 8}
  module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
  generator = torch.Generator().manual_seed(4)
  with torch.no_grad():
    for name, parameter in module.named_parameters():
      scale = 0.3 if parameter.ndim > 1 else 0.1
      offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      parameter.copy_(offset + scale * torch.randn(parameter.shape, generator=generator))
  module.save_pretrained(tmp_path)
  with torch.no_grad():
    generated, true = (
      module.get_image_features(
        torch.from_numpy(np.moveaxis(np.asarray(preprocess(jnp.asarray(frames) / 255.0, 32)), -1, 1).copy())
      )
      for frames in videos
    )
    generated, true = (getattr(found, "pooler_output", found) for found in (generated, true))
    expected = torch.nn.functional.cosine_similarity(generated, true).mean()
  measure = clip_measure(tmp_path)
  for one, other in zip(*videos):
    measure.add({"generated": one}, {"frame": other})
  assert measure.figures()["generated"] == pytest.approx(float(expected), abs=1e-5)
  assert measure.details()["weights"] == "model.safetensors" and float(expected) < 0.999
