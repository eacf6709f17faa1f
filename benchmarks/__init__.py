"""What the library costs, and whether its verdict is right."""
