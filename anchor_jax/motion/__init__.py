"""From a video to posed frames: video files, landmarks, tracks, pose renders, faces; numpy, OpenCV and PyAV, no JAX."""
