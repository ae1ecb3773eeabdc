"""The same surroundings for every test, whoever starts them: results depend on neither the machine nor the order.

A module's own settings come from its tests. What the shell, the CI runner or `nohup` happened to set is taken away
here, once, before torch is imported and for every process that a test starts.
"""

import gc
import os
import re
import signal
import sys

import pytest

INHERITED = re.compile(r"(AFFTOOL|GITHUB|GIT|RAY|TORCH\w*|OMP|MKL|HF)_.*|COLUMNS|LINES|(NO|FORCE)_COLOR")
"""Variables that change what the tool, or a program below it, does or prints."""
GIVEN = {
    "OMP_NUM_THREADS": "1",  # as in this process: two threads beside a busy core wait for each other at every step
    "GIT_CONFIG_GLOBAL": os.devnull,  # one that signs its commits, say
    "GIT_CONFIG_NOSYSTEM": "1",
}


def pytest_configure() -> None:
    for name in filter(INHERITED.fullmatch, list(os.environ)):
        del os.environ[name]
    os.environ.update(GIVEN)
    os.umask(0o022)
    # A background job of a script ignores Ctrl-C, and so would every child: only what is ignored outlives an exec.
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


def pytest_collection_finish() -> None:
    _keep_what_is_there()


@pytest.fixture(autouse=True, scope="module")
def _small_heap() -> None:
    _keep_what_is_there()


def _keep_what_is_there() -> None:
    """Modules and tests live to the end: every bench collects garbage, and need not look among them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for hardly any precision waits for the fewest rounds, and not for half of the budget."""
    monkeypatch.setattr("afftool.measure.time.race.EARLIEST", 0.0)


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
