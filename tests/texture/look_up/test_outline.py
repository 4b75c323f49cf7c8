import numpy as np

from anchor_jax.texture.look_up.outline import outline_table


def square(size=32):
  """A body of 12 x 12 pixels with three pixels of hair around it, in front of a gray wall."""
  surface, frame = np.zeros((size, size, 3), np.uint8), np.full((size, size, 3), 100, np.uint8)
  mask = np.zeros((size, size), np.uint8)
  surface[10:22, 10:22] = 1
  mask[7:25, 7:25] = 255
  frame[mask > 0] = (200, 150, 50)
  plate = np.dstack([np.full((size, size, 3), 104, np.uint8), np.full((size, size), 255, np.uint8)])
  return surface, frame, mask, plate


def test_offsets_lead_to_the_nearest_pixel_beside_the_pose():
  surface, frame, mask, plate = square()
  table = outline_table(surface, frame, mask, plate, 3)
  assert table[10, 15].tolist() == [0, -1, 0] and table[12, 20].tolist() == [2, 0, 0]
  assert table[16, 16].tolist() == [0, 0, -1]  # deeper than three pixels
  beside = surface[..., 0] == 0
  assert not table[beside, :2].any() and np.array_equal(table[beside, 2], mask[beside] > 0)


def test_without_a_mask_the_person_is_what_differs_from_the_plate():
  surface, frame, mask, plate = square()
  table = outline_table(surface, frame, None, plate, 3)
  beside = surface[..., 0] == 0
  assert np.array_equal(table[beside, 2], mask[beside] > 0)
  frame[7:10] = 100  # no hair there, although the mask has some
  assert not outline_table(surface, frame, mask, plate, 3)[7:10, :, 2].any()
  plate[..., 3] = 0
  assert outline_table(surface, frame, None, plate, 3)[0, 0, 2] == 1  # the plate is unknown


def test_narrow_gaps_between_surfaces_are_not_beside_the_pose():
  surface, frame, mask, plate = square()
  surface[10:22, 15:17] = 0
  table = outline_table(surface, frame, mask, plate, 3)
  assert (table[13:19, 15:17, 2] == -1).all() and not table[..., :2][13:19, 15:17].any()
