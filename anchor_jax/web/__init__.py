"""A person for a browser: a folder of plain files, in which onnxruntime-web draws her; no server computes anything."""
