"""The parts of a person: what body and head are, and where they differ.

A person is trained and sampled as two parts. The *body* generates the full frame from the pose render. The *head* then
repaints the face in a crop around it, frame by frame, at a finer scale than the body sees it. Both are the same model,
trainer and sampler under different settings (config/presets.py, configs/): a UNet with a pose branch between an
autoencoder's latents, conditioned on the image tokens of a reference image. "vae" names the training of the small
autoencoder that both share.

The head differs from the body in five places:

- *Face crops.* An upright square around the five face points, config.data.crop pixels wide (body/face_crop.py), takes
  the place of the frame; records without a face are left out (data/faces.py). The pose render, the looked-up channels
  and the reference image are cropped likewise (training/precompute.py, inference/reference.py).
- *Keep mask.* 1 where the crop stays as it is, 0 on the face, which is repainted (`face_crop.keep_mask`).
- *Inpainting channels.* The UNet also takes the keep mask and the latent of the crop with the face removed, 1 + C
  channels (`Networks.inpaint_condition`); the pose branch does not. In a folder of models, the head's UNet is head/unet
  (formats/roles.py).
- *Sampling.* A window is one frame. Frames share nothing but the body's picture around the face.
- *Paste.* The repainted crop is blended into the body's frame along the mask's soft edge (inference/paste.py).

Loss terms, optimizer, checkpoints and adapters are the same for both.
"""

PARTS = ("vae", "body", "head")  # values of config.part
