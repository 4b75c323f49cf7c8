"""Networks that do not fit each other are refused when they are read."""

import dataclasses

import pytest
from shipped import SHIPPED, shipped_config, shrunk
from tiny import tiny_model

from anchor_jax.config.fit import check_model, check_tower
from anchor_jax.config.run import RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import initial_weights
from anchor_jax.training.step import make_run_step

MISFITS = [
  ("image_encoder", {"hidden_size": 4}, "tokens have 4 features and the UNet's cross-attention takes 8"),
  ("controlnet", {"cross_attention_dim": 16}, "pose branch's cross-attention takes 16"),
  ("controlnet", {"block_out_channels": (8, 16)}, "other widths or layers"),
  ("controlnet", {"layers_per_block": 2}, "other widths or layers"),
  ("controlnet", {"in_channels": 4}, "pose branch takes 4"),
  ("vae", {"latent_channels": 4}, "latents have 4 channels"),
  ("unet", {"in_channels": 3}, "takes 3 channels"),
  ("vae", {"in_channels": 4}, "pictures of 3 channels"),
  ("image_encoder", {"num_channels": 1}, "pictures of 3 channels"),
]


@pytest.mark.parametrize("network,change,message", MISFITS)
def test_networks_that_do_not_fit_are_refused_when_read(network, change, message):
  model = tiny_model()
  model = dataclasses.replace(model, **{network: dataclasses.replace(getattr(model, network), **change)})
  with pytest.raises(UserError, match=message):
    check_model(model, "body")
  check_model(model, "vae")
  with pytest.raises(UserError, match=message):
    initial_weights(RunConfig(model=model))


@pytest.mark.parametrize("file,part", SHIPPED)
def test_the_networks_of_every_shipped_config_fit_each_other(file, part):
  config = shipped_config(file, part)
  check_model(config.model, config.part)
  check_model(shrunk(config).model, config.part)


def test_only_the_head_may_inpaint():
  check_model(tiny_model(inpaint=True), "head")
  check_model(tiny_model(), "head")
  with pytest.raises(UserError, match="the body's takes 2, the head's 5"):
    check_model(tiny_model(inpaint=True), "body")


def test_an_image_tower_of_another_width_is_refused():
  model = tiny_model()
  wider = dataclasses.replace(model.image_encoder, hidden_size=1024)
  with pytest.raises(UserError, match="ViT-B/32"):
    check_tower(wider, dataclasses.replace(model.unet, cross_attention_dim=768))


def test_only_trained_networks_can_be_clipped():
  config = RunConfig(model=tiny_model())
  optimizer = dataclasses.replace(config.optimizer, clip_networks=("refiner",))
  with pytest.raises(UserError, match="refiner, which this run does not train: choose from unet, controlnet"):
    make_run_step(dataclasses.replace(config, optimizer=optimizer), Networks(config.model))
