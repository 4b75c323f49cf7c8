"""What holds for every test: the CPU as eight devices, shapes and types of all our functions checked as they run.

This runs before anything imports JAX, which reads its platform and its number of devices once.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
# Tests may start processes of their own; those see the same platform and need no network.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

from jaxtyping import install_import_hook

# Every annotated function of the package checks its arguments and results, from here until pytest ends.
install_import_hook("anchor_jax", "beartype.beartype")
