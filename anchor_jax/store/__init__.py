"""Reads and writes people: workdirs, folders of models, adapters and inference bundles.

part.py        one trained part of a person, as everything below reads and writes it
weights.py     reads a part, or the weights that a run starts from, out of any of these
workdir.py     checkpoints, reference image and texture of a workdir; damage.py recognizes damaged checkpoints
restart.py     the settings that may change when a run is restarted
saving.py      writes people as folders of models, and adapters
light.py       light decoders
convert.py     converts folders of models for training, and people into folders of models
derive.py      models that a folder lacks and others in it give
bundle.py      writes inference bundles; run_bundle.py is their script
"""
