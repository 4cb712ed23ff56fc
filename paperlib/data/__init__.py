"""Data sets by name: images, and recordings of event cameras, real or simulated."""
