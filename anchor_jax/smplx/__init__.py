"""Motions from SMPL-X parameters: files of SHOW and TalkSHOW, posed with a model file that the user supplies."""
