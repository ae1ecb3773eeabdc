"""The simulations that `scripts/referee.py` runs: a file for each wing whose statistics are tried, on common worlds."""
