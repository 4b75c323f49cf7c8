"""Where weights are kept: workdirs, diffusers folders, adapters, inference bundles."""
