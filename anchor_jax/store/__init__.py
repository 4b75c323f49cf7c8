"""Reads and writes people: workdirs, folders of diffusers models, adapters and inference bundles.

roles.py      the table of what a folder of models holds, and where
folders.py    reads and writes such folders; complete.py and derive.py make models that a folder lacks
diffusers.py  one model's folder; tensors.py its tensors, names.py their names, registry.py its class
settings.py   the settings of a trained part; workdir.py its picture and checkpoints; damage.py judges those
adapters.py   the file of a run that trained adapters
weights.py    reads a part, or what a run starts from, out of any of these; saving.py writes people
conversion.py  turns folders of models into what training reads, and people into folders of models
bundle.py     writes inference bundles, with run_bundle.py as their script
"""
