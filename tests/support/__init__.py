"""Share code of tests and demos; nothing in here imports pytest."""
