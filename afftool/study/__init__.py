"""Accuracy ablations: one grid of cells, trained alike, judged together. No torch until cells are built."""
