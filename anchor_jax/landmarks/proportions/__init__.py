"""Proportions: one person's lengths, widths and rest pose; measured, aligned between films, and retargeted."""
