"""Experiments during a run."""
