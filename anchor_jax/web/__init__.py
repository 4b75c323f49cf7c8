"""A person for browsers: a folder of static files that onnxruntime-web runs on the visitor's device."""
