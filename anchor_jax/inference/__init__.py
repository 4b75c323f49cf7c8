"""From a trained person and a motion to frames: parts, sampling, live video, backgrounds."""
