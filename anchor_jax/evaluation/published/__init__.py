"""Published networks that measure pictures, as functions of the weights that users supply."""
