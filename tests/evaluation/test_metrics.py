import cv2
import numpy as np
import pytest

from anchor_jax.evaluation import metrics


def pair(shape, spread=40):
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 256, shape).astype(np.uint8)
  return truth, np.clip(truth.astype(int) + rng.integers(-spread, spread + 1, shape), 0, 255).astype(np.uint8)


def test_ssim_equals_scikit_image():
  truth, image = pair((24, 20, 3))
  found = metrics.ssim_map(truth, image)
  # structural_similarity(truth, image, gaussian_weights=True, use_sample_covariance=False, full=True, channel_axis=-1,
  # data_range=255)[1].mean(-1) of scikit-image 0.25
  at = [found[0, 0], found[3, 4], found[12, 10], found[23, 19], found.mean()]
  expected = [0.9419240857791974, 0.9600242525407184, 0.9461455513386573, 0.9556641219060807, 0.9522102047262871]
  np.testing.assert_allclose(at, expected, rtol=1e-10)


def test_psnr_counts_only_masked_pixels():
  truth = np.zeros((2, 8, 8, 3), np.uint8)
  image, mask = truth.copy(), np.zeros((2, 8, 8, 1), np.uint8)
  image[:, :4] = 255
  mask[:, 4:] = 255
  image[:, 4:] = 5
  assert metrics.psnr(image, truth, mask) == pytest.approx(20 * np.log10(255 / 5))
  assert metrics.psnr(truth, truth) == float("inf")
  with pytest.raises(ValueError, match="empty"):
    metrics.psnr(image, truth, np.zeros_like(mask))


def test_ssim_of_a_clip():
  truth, image = pair((3, 16, 16, 3))
  mask = np.full((3, 16, 16, 1), 255, np.uint8)
  assert metrics.ssim(truth, truth, mask) == pytest.approx(1)
  assert metrics.ssim(image, truth, mask) == pytest.approx(
    np.mean([metrics.ssim_map(a, b).mean() for a, b in zip(image, truth)])
  )


def test_flicker():
  truth = np.zeros((4, 8, 8, 3), np.uint8)
  steady, flashing = truth + np.uint8(30), truth.copy()
  flashing[::2] = 10
  assert metrics.flicker(steady, truth) == 0
  assert metrics.flicker(flashing, truth) == pytest.approx(10)
  moving = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
  assert metrics.flicker(truth, moving) == pytest.approx(1)  # a still picture of something moving


def ramp(slope, height=8, width=12):
  """Values that rise by `slope` per column and twice that per row."""
  y, x = np.indices((height, width))
  return (slope * (x + 2 * y))[..., None].repeat(3, axis=-1).astype(np.uint8)


def test_gradient_energy_of_a_ramp():
  everywhere = np.ones((8, 12), bool)
  # 8 x 11 differences of 3 along rows, 7 x 12 of 6 along columns, in three channels
  assert metrics.gradient_energy(ramp(3), everywhere) == 3 * (8 * 11 * 3**2 + 7 * 12 * 6**2)
  region = np.zeros((8, 12), bool)
  region[2:5, 3:7] = True
  assert metrics.gradient_energy(ramp(3), region) == 3 * (3 * 3 * 3**2 + 2 * 4 * 6**2)
  region[3, 4] = False  # four differences fewer
  assert metrics.gradient_energy(ramp(3), region) == 3 * (7 * 3**2 + 6 * 6**2)


def test_sharpness():
  truth = np.stack([ramp(4), ramp(2)])
  half = np.stack([ramp(2), ramp(1)])
  assert metrics.sharpness(half, truth) == pytest.approx(1 / 4)  # half the contrast
  assert metrics.sharpness(truth + np.uint8(9), truth) == 1 and metrics.sharpness(np.zeros_like(truth), truth) == 0
  mask = np.zeros((2, 8, 12, 1), np.uint8)
  mask[:, :, :6] = 255
  noisy = half.copy()
  noisy[:, :, 6:] = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3))  # right up to the mask's edge
  assert metrics.sharpness(noisy, truth, mask) == pytest.approx(1 / 4)
  mixed = np.stack([ramp(4), ramp(1)])  # all frames pooled: (16 + 1) / (16 + 4)
  assert metrics.sharpness(mixed, truth) == pytest.approx(17 / 20)
  plain = np.zeros_like(truth)
  assert metrics.sharpness(truth, plain) == float("inf")


def test_no_sharpness_if_the_truth_has_a_single_color():
  plain = np.zeros((8, 12, 3), np.uint8)
  figures = metrics.VideoFigures()
  figures.add(ramp(3), plain, np.full((8, 12, 1), 255, np.uint8))
  assert set(figures.figures()) == {"psnr", "ssim"}


def test_streamed_figures_equal_those_of_the_clip():
  truth, image = pair((4, 16, 12, 3))
  mask = np.where(np.random.default_rng(1).random((4, 16, 12, 1)) < 0.4, 255, 0).astype(np.uint8)
  mask[2] = 0
  streamed = metrics.VideoFigures()
  for frames in zip(image, truth, mask):
    streamed.add(*frames)
  expected = {name: getattr(metrics, name)(image, truth, mask) for name in ("psnr", "ssim", "flicker", "sharpness")}
  assert streamed.figures() == pytest.approx(expected, rel=1e-12)
  with pytest.raises(ValueError, match="empty"):
    metrics.VideoFigures().figures()


def cloth(shift):
  """A smooth random picture, shifted right by an integer number of pixels; new content enters at the left."""
  cells = np.random.default_rng(7).integers(0, 256, (12, 24, 3), dtype=np.uint8)
  return cv2.resize(cells, (192, 96), interpolation=cv2.INTER_CUBIC)[:, 64 - shift : 160 - shift]


def test_flow_error_is_the_change_along_the_true_motion():
  truth = [cloth(shift) for shift in (0, 3, 6)]
  lit = [np.clip(frame.astype(int) + light, 0, 255).astype(np.uint8) for frame, light in zip(truth, (0, 8, 0))]
  mask = np.full((96, 96, 1), 255, np.uint8)

  def figures(frames):
    finder, found = metrics.FlowFinder(), metrics.VideoFigures()
    for frame, true in zip(frames, truth):
      found.add(frame, true, mask, finder.next(true))
    return found.figures()

  moved, flickering, still = figures(truth), figures(lit), figures([truth[0]] * 3)
  assert moved["flow_error"] == moved["flow_error_of_truth"] < 0.5
  assert flickering["flow_error"] == pytest.approx(8, abs=1)  # except where it clips at 255
  assert still["flow_error"] > 10 * moved["flow_error"]  # the cloth should have moved
  assert np.abs(np.diff(np.stack(truth).astype(int), axis=0)).mean() > 10  # otherwise the test shows nothing


def test_small_frames_have_no_flow():
  finder = metrics.FlowFinder()
  assert [finder.next(np.zeros((8, 32, 3), np.uint8)) for _ in range(2)] == [None, None]
