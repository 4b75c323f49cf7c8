"""Reads and writes model files as other programs do: diffusers folders, single files, LoRA; names, tensors, roles."""
