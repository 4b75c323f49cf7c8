"""SMPL-X parameters as a source of motion: files of SHOW and TalkSHOW, and a model file that the user supplies."""
