"""`python -m afftool`."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # where `-m` puts the current folder, which the installed command leaves out too

from afftool.cli import main

main()
