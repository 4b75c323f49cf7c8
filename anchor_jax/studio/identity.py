"""Identities: a seed determines body, face, hair, clothes and room, as plain numbers.

Lengths are in meters, colors RGB in [0, 1]. All numbers come from one generator in a fixed order, so an identity is the
same on every machine. Do not change the order: the shipped weights are trained on these people.
"""

from dataclasses import dataclass

import numpy as np

from anchor_jax.core.errors import UserError

Color = tuple[float, float, float]

SKINS: tuple[Color, ...] = (
  (0.96, 0.80, 0.71),
  (0.93, 0.74, 0.62),
  (0.89, 0.68, 0.54),
  (0.82, 0.60, 0.45),
  (0.73, 0.51, 0.36),
  (0.62, 0.42, 0.29),
  (0.50, 0.33, 0.23),
  (0.40, 0.26, 0.18),
)
HAIRS: tuple[Color, ...] = (
  (0.07, 0.05, 0.05),
  (0.13, 0.08, 0.06),
  (0.24, 0.14, 0.08),
  (0.36, 0.22, 0.12),
  (0.52, 0.34, 0.17),
  (0.74, 0.56, 0.30),
  (0.62, 0.25, 0.10),
  (0.60, 0.60, 0.62),
)
CLOTHES: tuple[Color, ...] = (
  (0.13, 0.17, 0.30),
  (0.16, 0.38, 0.60),
  (0.62, 0.14, 0.18),
  (0.10, 0.42, 0.38),
  (0.90, 0.88, 0.84),
  (0.20, 0.20, 0.23),
  (0.80, 0.52, 0.16),
  (0.46, 0.22, 0.46),
  (0.30, 0.46, 0.24),
  (0.86, 0.56, 0.58),
  (0.42, 0.62, 0.78),
  (0.34, 0.24, 0.20),
)
WALLS: tuple[Color, ...] = (
  (0.78, 0.82, 0.86),
  (0.88, 0.83, 0.75),
  (0.60, 0.70, 0.74),
  (0.72, 0.78, 0.68),
  (0.84, 0.74, 0.72),
  (0.34, 0.42, 0.52),
  (0.54, 0.50, 0.60),
  (0.46, 0.56, 0.52),
)
EYES: tuple[Color, ...] = (
  (0.28, 0.16, 0.08),
  (0.36, 0.24, 0.12),
  (0.25, 0.40, 0.55),
  (0.30, 0.45, 0.30),
  (0.42, 0.44, 0.46),
)

HAIR_STYLES = ("short", "side", "crop", "long", "bob", "bun", "curly", "bald", "tail")
OUTFITS = ("tee", "shirt", "blazer", "sweater", "turtleneck", "vneck", "hoodie")
PATTERNS = ("plain", "stripes", "bands", "check", "dots", "print")
ROOMS = ("plain", "window", "picture", "shelf", "plant", "studio")
BEARDS = ("none", "stubble", "moustache", "full", "goatee")


@dataclass(frozen=True, slots=True)
class Identity:
  """The numbers that describe one person and the room; see `make_identity`.

  Lengths are in meters unless a comment says otherwise, colors RGB in [0, 1]; everything else has no unit.
  """

  seed: int
  # body
  scale: float
  shoulder: float  # half of the width
  chest: float
  waist: float
  neck: float
  arm: float  # length of upper arm; the forearm is 0.90 of it
  limb: float  # thickness, about 1
  hand: float  # size, about 1
  # head
  head_height: float
  head_width: float  # width over height
  jaw: float  # 0 narrow .. 1 broad
  square: float
  cheek: float
  ear: float
  # face, in half head heights
  eye_gap: float
  eye_size: float
  eye_open: float
  eye_tilt: float
  brow_height: float
  brow_thick: float
  brow_angle: float
  nose_length: float
  nose_width: float
  nose_out: float
  mouth_width: float
  lip_upper: float
  lip_lower: float
  age: float
  freckles: float
  makeup: float
  blush: float
  # colors
  skin: Color
  hair: Color
  eye: Color
  lips: Color
  # style
  hair_style: str
  hair_volume: float
  parting: float
  beard: str
  glasses: float  # size of the frames; 0 for none
  glasses_color: Color
  earrings: bool
  outfit: str
  sleeve: float  # bones of the arm that are covered: below 1 part of the upper arm, 2 all of the arm
  cloth: Color
  cloth_two: Color
  shirt: Color
  pattern: str
  pattern_scale: float
  print_shape: int
  bulk: float
  # room
  room: str
  wall: Color
  wall_two: Color
  key_side: float  # side of the key light, -1 left .. 1 right
  warmth: float


def _vary(generator: np.random.Generator, color: Color, amount: float) -> Color:
  red, green, blue = np.clip(np.asarray(color) * (1 + generator.uniform(-amount, amount, 3)), 0.02, 0.98)
  return float(red), float(green), float(blue)


def make_identity(seed: int) -> Identity:
  """The identity of a seed: the same on every machine, independent of the motion's seed.

  Raises:
    UserError: the seed is negative.
  """
  if seed < 0:
    raise UserError(f"a studio person's seed is {seed}: give 0 or more")
  g = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0x70657273])))

  def real(low: float | int, high: float | int) -> float:
    return float(g.uniform(low, high))

  def pick(options: tuple, weights: tuple[float | int, ...] | None = None):
    share = None if weights is None else np.asarray(weights) / np.sum(weights)
    return options[int(g.choice(len(options), p=share))]

  soft = real(0, 1)  # 0 for a broad, angular body, 1 for a slight one; hair, beard and makeup correlate with it
  tone = int(g.integers(len(SKINS)))
  skin = _vary(g, SKINS[tone], 0.05)
  age = float(real(0, 1) ** 1.6)
  hair = _vary(g, HAIRS[7] if age > 0.8 else pick(HAIRS[:7] if tone < 4 else HAIRS[:3]), 0.12)
  style = pick(
    HAIR_STYLES, (1, 1, 0.6, 2.2, 1.6, 1.4, 0.8, 0, 1.2) if soft > 0.5 else (2, 2, 1.4, 0.3, 0.2, 0.3, 1, 0.8, 0.2)
  )
  beard = "none" if soft > 0.5 else pick(BEARDS, (3, 1.5, 0.8, 1.4, 0.8))
  outfit = pick(OUTFITS)
  cloth_index, two_index, wall_index = g.permutation(len(CLOTHES))[:2].tolist() + [int(g.integers(len(WALLS)))]
  pattern = "plain" if outfit == "blazer" else pick(PATTERNS, (2, 1.4, 1.4, 0.9, 0.8, 1.4))
  lips = np.asarray(skin) * (0.86, 0.62, 0.60)
  makeup = real(0.2, 1.0) if soft > 0.5 else 0.0
  painted = lips * (1 - 0.55 * makeup) + np.asarray((0.72, 0.16, 0.22)) * 0.55 * makeup
  return Identity(
    seed=int(seed),
    scale=real(0.96, 1.04),
    shoulder=real(0.190, 0.212) - 0.030 * soft,
    chest=real(0.96, 1.10) - 0.08 * soft,
    waist=real(0.86, 1.10) - 0.12 * soft,
    neck=real(0.054, 0.062) - 0.010 * soft,
    arm=real(0.262, 0.285),
    limb=real(0.98, 1.16) - 0.20 * soft,
    hand=real(1.06, 1.16) - 0.06 * soft,
    head_height=real(0.280, 0.300),
    head_width=real(0.70, 0.77),
    jaw=real(0.35, 1.0) - 0.35 * soft,
    square=real(0.2, 1.0) - 0.3 * soft,
    cheek=real(0.0, 1.0),
    ear=real(0.9, 1.2),
    eye_gap=real(0.305, 0.345),
    eye_size=real(0.165, 0.195) + 0.014 * soft,
    eye_open=real(0.48, 0.62),
    eye_tilt=real(-0.06, 0.16),
    brow_height=real(0.225, 0.285),
    brow_thick=real(0.040, 0.062) - 0.018 * soft,
    brow_angle=real(-0.16, 0.06),
    nose_length=real(0.35, 0.43),
    nose_width=real(0.105, 0.15) - 0.015 * soft,
    nose_out=real(0.85, 1.15),
    mouth_width=real(0.235, 0.305),
    lip_upper=real(0.045, 0.085) + 0.012 * soft,
    lip_lower=real(0.065, 0.105) + 0.014 * soft,
    age=age,
    freckles=real(0.3, 1.0) if tone < 3 and real(0, 1) < 0.25 else 0.0,
    makeup=makeup,
    blush=real(0.1, 0.5),
    skin=skin,
    hair=hair,
    eye=_vary(g, pick(EYES if tone < 5 else EYES[:2]), 0.15),
    lips=(float(painted[0]), float(painted[1]), float(painted[2])),
    hair_style=style,
    hair_volume=real(0.0, 1.0),
    parting=real(-0.6, 0.6),
    beard=beard,
    glasses=real(0.9, 1.15) if real(0, 1) < 0.28 else 0.0,
    glasses_color=pick(((0.06, 0.06, 0.07), (0.35, 0.18, 0.08), (0.55, 0.48, 0.30))),
    earrings=bool(soft > 0.5 and real(0, 1) < 0.5),
    outfit=outfit,
    sleeve=pick((0.62, 2.0)) if outfit in ("tee", "vneck") else pick((2.0, 1.45, 2.0)) if outfit == "shirt" else 2.0,
    cloth=_vary(g, CLOTHES[cloth_index], 0.12),
    cloth_two=_vary(g, CLOTHES[two_index], 0.12),
    shirt=_vary(g, pick(((0.92, 0.92, 0.93), (0.70, 0.80, 0.92), (0.90, 0.78, 0.78), (0.30, 0.32, 0.38))), 0.04),
    pattern=pattern,
    pattern_scale=real(0.7, 1.4),
    print_shape=int(g.integers(5)),
    bulk=real(0.006, 0.014),
    room=pick(ROOMS),
    wall=_vary(g, WALLS[wall_index], 0.06),
    wall_two=_vary(g, CLOTHES[int(g.integers(len(CLOTHES)))], 0.1),
    key_side=float(np.sign(real(-1, 1)) * real(0.6, 1.0)),
    warmth=real(-1, 1),
  )
