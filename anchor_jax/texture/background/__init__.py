"""The background: the room without the person, as the film and its camera show it, in frames of any size."""
