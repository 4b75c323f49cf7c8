"""What the page's users ask for: a queue of jobs, the worker that runs them, and their progress."""
