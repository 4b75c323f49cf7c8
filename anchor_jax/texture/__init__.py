"""What a film shows of a person (atlas, key frames, background plate), and its look-up for a wanted pose."""
