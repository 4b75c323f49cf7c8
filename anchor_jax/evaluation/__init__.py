"""What `evaluate` compares generated videos by: baselines, metrics, and the tables and page of a report."""
