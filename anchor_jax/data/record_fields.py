"""What a prepared folder's records hold, for those who write them and those who read them."""

FORMAT = 1  # of the folder; another one is refused
SPLIT = "frames"
IMAGES = {"frame": 3, "pose": 3, "person_mask": 1, "face_mask": 1, "surface": 3}  # and the channels of each
FIELDS = (*IMAGES, "landmarks", "person", "video", "index")
