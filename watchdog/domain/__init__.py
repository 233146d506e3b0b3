"""What results mean: pure code without I/O, clock or randomness."""
