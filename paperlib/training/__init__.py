"""Training: penalties on the input gradient, the trainings that use them, and the training loop."""

from paperlib.training.loop import Passes, Schedule, epochs, passes, to_bytes
