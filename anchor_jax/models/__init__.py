"""The networks in Flax Linen (UNet, ControlNet, autoencoder, CLIP towers), and pure functions of their weights."""
