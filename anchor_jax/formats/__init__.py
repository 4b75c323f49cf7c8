"""Model files as others write them: diffusers folders, single files, LoRA; their names, tensors and roles."""
