"""How a studio person looks: body, face, hair, clothes, light and background, drawn on the rasterizer's points."""
