"""Registration: where a frame shows what the texture of all frames has, and how the pose explains it."""
