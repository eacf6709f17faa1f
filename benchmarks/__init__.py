"""Measure what the library costs, and whether its verdict is right."""
