"""What tests and demos share; nothing in here imports pytest."""
