"""Networks in Flax Linen (UNet, pose branch, autoencoder, CLIP towers), and pure functions of their weights."""
