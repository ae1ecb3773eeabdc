"""The tests themselves: what a CI runner, a script or a shell hands on to them reaches no program they start."""

import os
import subprocess
import sys
from pathlib import Path

SEES = """
import os, signal
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
print(oct(os.umask(0)))
print({name: value for name, value in os.environ.items() if "afftool-test" in value})
"""
IGNORING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
os.umask(0o077)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_program_started_by_a_test_can_be_interrupted_and_inherits_no_settings() -> None:
    told = subprocess.run([sys.executable, "-c", SEES], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["True", "True", "0o22", "{}"]


def test_it_does_not_matter_who_starts_the_tests() -> None:
    """The test above, in tests that are started as a background job of a script with everything set."""
    name = f"{Path(__file__)}::{test_a_program_started_by_a_test_can_be_interrupted_and_inherits_no_settings.__name__}"
    names = ("AFFTOOL_STORE", "GITHUB_ACTIONS", "GIT_DIR", "RAY_ADDRESS", "OMP_NUM_THREADS", "COLUMNS", "FORCE_COLOR")
    done = subprocess.run(
        [sys.executable, "-c", IGNORING, "-m", "pytest", "-p", "no:cacheprovider", name],
        env=os.environ | dict.fromkeys(names, "afftool-test"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
