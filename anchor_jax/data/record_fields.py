"""The fields of a prepared folder's records, for its writers and readers."""

FORMAT = 1  # of the folder; others are refused
SPLIT = "frames"
IMAGES = {"frame": 3, "pose": 3, "person_mask": 1, "face_mask": 1, "surface": 3}  # channels of each image
FIELDS = (*IMAGES, "landmarks", "person", "video", "index")
