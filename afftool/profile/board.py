"""Starts TensorBoard on a log, for as long as somebody looks at it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from afftool.errors import LoadError
from afftool.profile import plugin

_ADDRESS = re.compile(r"http://\S+")
_PAGE = "#pytorch_profiler"


@contextmanager
def tensorboard(log: Path, *, port: int = 0, patience_s: float = 60.0) -> Iterator[str]:
    """TensorBoard on `log`, reachable from this machine only, and its address; it stops when the context ends.

    Port 0 is any that is free. Raises `LoadError` if it is not installed, finds no log, or does not come up.
    """
    if not any(log.rglob("*.pt.trace.json*")):
        raise LoadError(f"no TensorBoard log under {log}", hint="`afftool profile --fusion NAME` writes one")
    missing = [name for name in ("tensorboard", "torch_tb_profiler") if find_spec(name) is None]
    if missing:
        raise LoadError(
            f"{' and '.join(missing)} is not installed, so there is no page to open",
            hint=f"pip install {plugin.PACKAGE}; the report and trace.json.gz (ui.perfetto.dev) need neither",
        )
    command = [sys.executable, "-P", "-m", "afftool.profile.server", "--logdir", str(log), "--host", "127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "tensorboard.log"
        with words.open("wb") as output:
            # A session of its own: a Ctrl-C in the terminal reaches us alone, and we stop it in order.
            server = subprocess.Popen(
                [*command, "--port", str(port), "--load_fast", "false"],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield _address(server, words, patience_s)
        finally:
            _stop(server)


def _address(server: subprocess.Popen[bytes], words: Path, patience_s: float) -> str:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        said = words.read_text(errors="replace")
        found = _ADDRESS.search(said) if "TensorBoard" in said else None
        if found:
            return found[0].rstrip("/") + "/" + _PAGE
        if server.poll() is not None:
            raise LoadError(f"TensorBoard did not start: {_last_line(said)}", hint="try another --port, or none")
        time.sleep(0.1)
    raise LoadError(f"TensorBoard did not come up within {patience_s:g} s: {_last_line(words.read_text())}")


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(timeout=10)
        return
    server.kill()
    server.wait()
