"""The config files of published models are read; their fields are retyped here.

Files of one time have the same fields, so each model is given as the difference to its version of diffusers.
"""

import json

import pytest

from anchor_jax.config.networks import (
  CLIPTextConfig,
  CLIPVisionConfig,
  ControlNetConfig,
  ScheduleConfig,
  UNetConfig,
  VAEConfig,
)
from anchor_jax.core.errors import UserError
from anchor_jax.formats.diffusers import load_network_config, load_schedule
from anchor_jax.formats.registry import parse_network_config

ATTENDING = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
SHARED_2022 = {
  "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
  "down_block_types": ATTENDING, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4,
  "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
}  # fmt: skip
UNET_2022 = {
  **SHARED_2022, "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "center_input_sample": False,
  "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
UNET_2023 = {
  **UNET_2022, "_diffusers_version": "0.17.0.dev0", "addition_embed_type": None, "addition_embed_type_num_heads": 64,
  "class_embed_type": None, "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3,
  "cross_attention_norm": None, "dual_cross_attention": False, "encoder_hid_dim": None,
  "mid_block_only_cross_attention": None, "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None,
  "only_cross_attention": False, "projection_class_embeddings_input_dim": None, "resnet_out_scale_factor": 1.0,
  "resnet_skip_time_act": False, "resnet_time_scale_shift": "default", "time_cond_proj_dim": None,
  "time_embedding_act_fn": None, "time_embedding_dim": None, "time_embedding_type": "positional",
  "timestep_post_act": None, "upcast_attention": None, "use_linear_projection": False,
}  # fmt: skip
UNET_2024 = {
  **UNET_2023, "_diffusers_version": "0.32.2", "addition_time_embed_dim": None, "attention_type": "default",
  "dropout": 0.0, "encoder_hid_dim_type": None, "num_attention_heads": None, "upcast_attention": False,
  "reverse_transformer_layers_per_block": None, "transformer_layers_per_block": 1,
}  # fmt: skip
SD_21 = {
  "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "dual_cross_attention": False,
  "num_class_embeds": None, "only_cross_attention": False, "sample_size": 96, "use_linear_projection": True,
}  # fmt: skip
FLAX_14 = {
  "_class_name": "FlaxUNet2DConditionModel", "_diffusers_version": "0.5.0.dev0", "attention_head_dim": 8,
  "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "down_block_types": ATTENDING,
  "dropout": 0.0, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "out_channels": 4, "sample_size": 64,
  "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
UNETS = {
  "Stable Diffusion 1.4": (UNET_2022, {}),
  "Stable Diffusion 1.4, Flax": (FLAX_14, {}),
  "Stable Diffusion 1.5": (UNET_2023, {}),
  "Stable Diffusion 1.5 inpainting": (UNET_2022 | {"in_channels": 9, "sample_size": 32}, {"in_channels": 9}),
  "DreamShaper": (UNET_2024 | {"_diffusers_version": "0.21.0.dev0", "only_cross_attention": [False] * 4}, {}),
  "Realistic Vision": (UNET_2024 | {"_diffusers_version": "0.21.2"}, {}),
  "saved again": (UNET_2024, {}),
  "Stable Diffusion 2.1": (
    UNET_2022 | SD_21 | {"upcast_attention": True},
    {
      "attention_head_dim": (5, 10, 20, 20),
      "cross_attention_dim": 1024,
      "use_linear_projection": True,
      "upcast_attention": True,
    },
  ),
  "Stable Diffusion 2.1, Flax": (
    UNET_2022 | SD_21 | {"_class_name": "FlaxUNet2DConditionModel", "dropout": 0.0},
    {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
  ),
}


def written(folder, fields, name="config.json"):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(json.dumps(fields))
  return folder


@pytest.mark.parametrize("model", UNETS)
def test_unets(model, tmp_path):
  fields, differs = UNETS[model]
  config = load_network_config(written(tmp_path / "unet", fields), UNetConfig)
  assert config == UNetConfig(**{"sample_size": fields["sample_size"], **differs})
  assert config.heads == ((5, 10, 20, 20) if "2.1" in model else (8, 8, 8, 8))


CONTROLNET_10 = {
  **SHARED_2022, "_class_name": "ControlNetModel", "_diffusers_version": "0.14.0.dev0", "class_embed_type": None,
  "conditioning_embedding_out_channels": [16, 32, 96, 256], "controlnet_conditioning_channel_order": "rgb",
  "num_class_embeds": None, "only_cross_attention": False, "projection_class_embeddings_input_dim": None,
  "resnet_time_scale_shift": "default", "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
CONTROLNETS = {
  "sd-controlnet-openpose": CONTROLNET_10,
  "control_v11p_sd15_openpose": CONTROLNET_10 | {"_diffusers_version": "0.16.0.dev0", "global_pool_conditions": False},
  "of depth, saved in 2024": {
    **CONTROLNET_10, "_diffusers_version": "0.26.0.dev0", "addition_embed_type": None, "addition_time_embed_dim": None,
    "addition_embed_type_num_heads": 64, "conditioning_channels": 3, "encoder_hid_dim": None,
    "encoder_hid_dim_type": None, "global_pool_conditions": False, "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None, "transformer_layers_per_block": 1,
  },
}  # fmt: skip


@pytest.mark.parametrize("model", CONTROLNETS)
def test_controlnets(model, tmp_path):
  config = load_network_config(written(tmp_path / "controlnet", CONTROLNETS[model]), ControlNetConfig)
  assert config == ControlNetConfig.from_unet(UNetConfig())


VAE = {
  "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
  "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4, "layers_per_block": 2,
  "norm_num_groups": 32, "out_channels": 3, "sample_size": 512, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip


@pytest.mark.parametrize(
  "added",
  [
    {},
    {"_class_name": "FlaxAutoencoderKL", "sample_size": 768},
    {"scaling_factor": 0.18215, "sample_size": 256},
    {"scaling_factor": 0.18215, "force_upcast": True},
    {
      "scaling_factor": 0.18215, "force_upcast": True, "latents_mean": None, "latents_std": None, "shift_factor": None,
      "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
    },
  ],
  ids=("1.4", "2.1 Flax", "1.5 inpainting", "Realistic Vision", "saved again"),
)  # fmt: skip
def test_autoencoders(added, tmp_path):
  fields = VAE | added
  assert load_network_config(written(tmp_path, fields), VAEConfig) == VAEConfig(sample_size=fields["sample_size"])


# Fields that transformers wrote for every model until 2022, as in both of CLIP's towers.
FALSE = (
  "add_cross_attention do_sample early_stopping is_decoder is_encoder_decoder output_attentions output_hidden_states "
  "output_scores remove_invalid_values return_dict_in_generate tie_encoder_decoder torchscript use_bfloat16"
).split()
NULL = (
  "architectures bad_words_ids cross_attention_hidden_size decoder_start_token_id finetuning_task forced_bos_token_id "
  "forced_eos_token_id prefix problem_type sep_token_id task_specific_params tokenizer_class torch_dtype"
).split()
TOWER = {
  **dict.fromkeys(FALSE, False), **dict.fromkeys(NULL), "_name_or_path": "", "attention_dropout": 0.0,
  "chunk_size_feed_forward": 0, "diversity_penalty": 0.0, "dropout": 0.0, "encoder_no_repeat_ngram_size": 0,
  "hidden_act": "quick_gelu", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "initializer_factor": 1.0,
  "initializer_range": 0.02, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "layer_norm_eps": 1e-05, "length_penalty": 1.0,
  "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1,
  "num_hidden_layers": 12, "num_return_sequences": 1, "pruned_heads": {}, "repetition_penalty": 1.0,
  "return_dict": True, "temperature": 1.0, "tie_word_embeddings": True, "top_k": 50, "top_p": 1.0,
  "transformers_version": "4.16.0.dev0",
}  # fmt: skip


def clip(projection, text, vision):
  text = {**TOWER, "model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
          "max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": projection, **text}  # fmt: skip
  vision = {**TOWER, "model_type": "clip_vision_model", "bos_token_id": None, "eos_token_id": None,
            "pad_token_id": None, "image_size": 224, "projection_dim": projection, **vision}  # fmt: skip
  return {
    "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "model_type": "clip",
    "projection_dim": projection, "text_config": text, "vision_config": vision, "transformers_version": None,
    "text_config_dict": None, "vision_config_dict": None,
  }  # fmt: skip


B32 = clip(
  512,
  {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
  {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "patch_size": 32},
)
L14_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
L14_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
L14 = clip(768, L14_TEXT, {**L14_VISION, "num_hidden_layers": 24}) | {
  "_name_or_path": "clip-vit-large-patch14/",
  "torch_dtype": "float32",
  "text_config_dict": {**L14_TEXT, "num_hidden_layers": 12},
  "vision_config_dict": {**L14_VISION, "num_hidden_layers": 24},
}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}


def test_clip(tmp_path):
  b32, l14 = (written(tmp_path / name, fields) for name, fields in (("b32", B32), ("l14", L14)))
  assert load_network_config(b32, CLIPVisionConfig) == CLIPVisionConfig()
  assert load_network_config(l14, CLIPVisionConfig) == CLIPVisionConfig(patch_size=14, projection_dim=768, **LARGE)
  assert load_network_config(l14).tokens == 257
  text = load_network_config(written(tmp_path / "text_encoder", L14), CLIPTextConfig)
  assert text == CLIPTextConfig(projection_dim=768)


def test_clip_s_sizes_are_found_in_all_layouts():
  only_second = {**L14, "vision_config": None}
  assert parse_network_config(only_second) == CLIPVisionConfig(patch_size=14, **LARGE)
  named_by_type = {key: value for key, value in B32.items() if key != "architectures"}
  assert parse_network_config(named_by_type) == CLIPVisionConfig()
  assert parse_network_config({**B32["text_config"], "model_type": "clip_text_model"}).hidden_size == 512
  for damaged in ({**B32, "vision_config": 3}, {"architectures": 3}, {"architectures": []}, {"architectures": [[]]}):
    with pytest.raises(UserError, match=r"^config\.json"):
      parse_network_config(damaged)


STABLE_TEXT = {
  "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
  "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02,
  "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
  "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "torch_dtype": "float32",
  "transformers_version": "4.23.1", "vocab_size": 49408,
}  # fmt: skip
TEXT_21 = {"hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
           "num_hidden_layers": 23, "projection_dim": 512}  # fmt: skip


@pytest.mark.parametrize("added", [{}, {"projection_dim": 768, "torch_dtype": "float16"}, TEXT_21])
def test_text_encoders(added, tmp_path):
  numbers = {key: value for key, value in added.items() if key != "torch_dtype"}
  assert load_network_config(written(tmp_path, STABLE_TEXT | added), CLIPTextConfig) == CLIPTextConfig(**numbers)


BETAS = {
  "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
  "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}  # fmt: skip
NOW = {**BETAS, "clip_sample": False, "prediction_type": "epsilon", "timestep_spacing": "leading"}
SCHEDULERS = {
  "Stable Diffusion 1.4": ({**BETAS, "_class_name": "PNDMScheduler"}, {}),
  "Stable Diffusion 1.5": (
    {
      **BETAS, "_class_name": "PNDMScheduler", "clip_sample": False, "clip_sample_range": 1.0, "thresholding": False,
      "dynamic_thresholding_ratio": 0.995, "prediction_type": "epsilon", "sample_max_value": 1.0,
    },
    {},
  ),
  "Stable Diffusion 1.5 inpainting": ({**BETAS, "_class_name": "DDIMScheduler", "clip_sample": False}, {}),
  "Stable Diffusion 2.1": (
    {**BETAS, "_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"},
    {"prediction_type": "v_prediction"},
  ),
  "Stable Diffusion 2.1, Flax": (
    {**BETAS, "_class_name": "FlaxDDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"},
    {"prediction_type": "v_prediction"},
  ),
  "Realistic Vision": ({**NOW, "_class_name": "PNDMScheduler"}, {}),
  "DreamShaper": (
    {
      **NOW, "_class_name": "DEISMultistepScheduler", "algorithm_type": "deis", "dynamic_thresholding_ratio": 0.995,
      "lower_order_final": True, "sample_max_value": 1.0, "solver_order": 2, "solver_type": "logrho",
      "thresholding": False, "use_karras_sigmas": False,
    },
    {},
  ),
  "Euler": (
    {
      **NOW, "_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear", "rescale_betas_zero_snr": False,
      "sample_max_value": 1.0, "sigma_max": None, "sigma_min": None, "timestep_type": "discrete",
      "use_karras_sigmas": True, "final_sigmas_type": "zero",
    },
    {},
  ),
  "ancestral Euler, with leftover fields of DPM": (
    {
      **NOW, "_class_name": "EulerAncestralDiscreteScheduler", "algorithm_type": "dpmsolver++", "solver_order": 2,
      "dynamic_thresholding_ratio": 0.995, "lower_order_final": True, "solver_type": "midpoint",
      "timestep_spacing": "linspace",
    },
    {"timestep_spacing": "linspace"},
  ),
  "DPM": (
    {
      **NOW, "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "euler_at_final": False,
      "final_sigmas_type": "zero", "lambda_min_clipped": float("-inf"), "use_lu_lambdas": False, "variance_type": None,
      "flow_shift": 1.0, "use_flow_sigmas": False, "time_shift_type": "exponential", "use_dynamic_shifting": False,
    },
    {},
  ),
  "UniPC": (
    {**NOW, "_class_name": "UniPCMultistepScheduler", "predict_x0": True, "solver_type": "bh2", "solver_p": None,
     "disable_corrector": []},
    {},
  ),
  "LCM": (
    {**NOW, "_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}, {}
  ),
  "zero signal at the end": (
    {**NOW, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
     "prediction_type": "v_prediction"},
    {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
  ),
  "Heun without fields": ({"_class_name": "HeunDiscreteScheduler"}, {
    "beta_schedule": "linear", "set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "linspace"}),
  "from before prediction_type": (
    {**BETAS, "_class_name": "DDPMScheduler", "predict_epsilon": False}, {"prediction_type": "sample"}
  ),
}  # fmt: skip


@pytest.mark.parametrize("model", SCHEDULERS)
def test_schedulers(model, tmp_path):
  fields, differs = SCHEDULERS[model]
  assert load_schedule(written(tmp_path, fields, "scheduler_config.json")) == ScheduleConfig(**differs)


@pytest.mark.parametrize(
  ("kind", "fields", "named"),
  [
    (UNetConfig, {"only_cross_attention": [True, False, False, False]}, "only_cross_attention"),
    (UNetConfig, {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),  # distilled for few steps
    (UNetConfig, {"addition_embed_type": "text_time"}, "addition_embed_type"),  # Stable Diffusion XL
    (UNetConfig, {"encoder_hid_dim": 1024}, "encoder_hid_dim"),
    (UNetConfig, {"attention_type": "gated"}, "attention_type"),
    (VAEConfig, {"latents_mean": [0.1, 0.2]}, "latents_mean"),
    (CLIPTextConfig, {"is_decoder": True}, "is_decoder"),
    (ScheduleConfig, {"timestep_type": "continuous"}, "timestep_type"),
    (ScheduleConfig, {"use_flow_sigmas": True}, "use_flow_sigmas"),
    (ScheduleConfig, {"trained_betas": []}, "trained_betas"),
    (ScheduleConfig, {"thresholding": True}, "thresholding"),
    (ScheduleConfig, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
    (ScheduleConfig, {"_class_name": 3}, "scheduler '3'"),
  ],
)
def test_fields_that_would_change_the_results_are_refused_by_name(kind, fields, named):
  with pytest.raises(UserError, match=named) as caught:
    kind.from_json(fields)
  assert "\n" not in str(caught.value)
