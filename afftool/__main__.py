"""`python -m afftool`."""

from afftool.cli import main

main()
