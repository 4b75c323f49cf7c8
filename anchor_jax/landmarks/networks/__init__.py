"""The landmark networks: their files, their runtime, and the way from picture to points of one person."""
