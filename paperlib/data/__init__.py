"""Data sets by name: images, and event recordings, real or simulated."""
