"""Videos, people, poses, faces and the data sets made of them: numpy, no model."""
