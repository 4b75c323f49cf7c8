"""What every room uses: errors, command-line flags, array types, JAX set-up, sharding over the device mesh."""
