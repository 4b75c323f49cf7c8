"""The page's jobs: the queue, the worker that runs them, and their progress."""
