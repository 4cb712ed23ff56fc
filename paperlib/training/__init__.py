"""Training: penalties on the input gradient, trainings that use them, and the one training loop."""

from paperlib.training.loop import Passes, Schedule, epochs, passes, to_bytes
