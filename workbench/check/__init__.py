"""``python -m project check``: what can be known before the first step, as a table, findings and images."""
