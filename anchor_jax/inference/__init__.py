"""Inference: from a trained person and a motion to video frames, live or with another background."""
