"""What `evaluate` measures generated videos with: baselines, measures and tables of figures."""
