"""Fields of published config files that have no effect here, and the published schedulers that can be read.

The names are those of diffusers, its Flax classes, and transformers. `json_file.Config` refuses a field by name unless
it is known, listed here, null, or false.
"""

from collections.abc import Mapping
from typing import Any

from anchor_jax.config.json_file import ANY


def _any(names: str) -> dict[str, Any]:
  return dict.fromkeys(names.split(), ANY)


# How numbers are computed, not which.
_IMPLEMENTATION = _any("dtype split_head_dim use_memory_efficient_attention")

# Of UNet and ControlNet. Listed values are the supported choices of their field.
UNET: Mapping[str, Any] = {
  **_IMPLEMENTATION,
  **_any("sample_size addition_embed_type_num_heads"),
  **dict.fromkeys(("mid_block_scale_factor", "resnet_out_scale_factor"), (1,)),
  **dict.fromkeys(("conv_in_kernel", "conv_out_kernel"), (3,)),
  **dict.fromkeys(("resnet_time_scale_shift", "attention_type"), ("default",)),
  "dropout": (0,),
  "time_embedding_type": ("positional",),
}

VAE: Mapping[str, Any] = {**_IMPLEMENTATION, **_any("force_upcast"), "shift_factor": (0,)}

# Of CLIP's towers: fields for training and text generation, and those that transformers writes for every model. Not
# listed, since they change the numbers: is_decoder, is_encoder_decoder, add_cross_attention.
CLIP: Mapping[str, Any] = _any(
  "architectures model_type transformers_version torch_dtype dtype torchscript use_bfloat16 pruned_heads "
  "initializer_factor initializer_range attention_dropout dropout gradient_checkpointing tie_word_embeddings "
  "tie_encoder_decoder bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id forced_bos_token_id "
  "forced_eos_token_id top_k top_p temperature typical_p max_length min_length num_beams num_beam_groups do_sample "
  "early_stopping diversity_penalty repetition_penalty length_penalty exponential_decay_length_penalty bad_words_ids "
  "suppress_tokens begin_suppress_tokens num_return_sequences encoder_no_repeat_ngram_size no_repeat_ngram_size "
  "chunk_size_feed_forward id2label label2id problem_type use_cache output_attentions output_hidden_states "
  "output_scores return_dict return_dict_in_generate use_return_dict remove_invalid_values tokenizer_class prefix "
  "finetuning_task task_specific_params"
)

# Of schedulers: settings of their own solvers. Solvers here have settings of their own.
SCHEDULER: Mapping[str, Any] = {
  **_any(
    "dtype skip_prk_steps variance_type clip_sample_range dynamic_thresholding_ratio sample_max_value algorithm_type "
    "solver_type solver_order solver_p predictor_order corrector_order predict_x0 disable_corrector tau_func "
    "lower_order_final euler_at_final final_sigmas_type lambda_min_clipped interpolation_type sigma_min sigma_max "
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas original_inference_steps timestep_scaling "
    "flow_shift time_shift_type noise_sampler_seed"  # the first two only act with use_flow_sigmas
  ),
  "timestep_type": ("discrete",),
}

# Schedulers whose noise levels come from a table of betas, and their defaults where they differ from DDIM's.
_SPREAD = {"timestep_spacing": "linspace"}
_SD = {"beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
  f"{name}Scheduler": defaults
  for names, defaults in (
    ("DDIM DDIMParallel DDIMInverse DDPM DDPMParallel", {}),
    ("PNDM", {"set_alpha_to_one": False}),
    ("EulerDiscrete EulerAncestralDiscrete LMSDiscrete DEISMultistep UniPCMultistep SASolver", _SPREAD),
    ("DPMSolverMultistep DPMSolverMultistepInverse DPMSolverSinglestep", _SPREAD),
    ("HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete DPMSolverSDE", {**_SPREAD, **_SD}),
    ("LCM TCD", {**_SD, "beta_schedule": "scaled_linear"}),
  )
  for name in names.split()
}
