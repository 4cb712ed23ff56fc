"""The ratio theorem (to be written)."""
KEPT = 0.95
def within_bounds(record): raise NotImplementedError
