"""The one file that knows torch-tb-profiler: its log, its tables, its pages.

The plugin is no longer developed; 0.4.3 is its last release and what this file is written for. Traces of today's
PyTorch say a few things in ways it does not know, so its copy of the trace is translated (`translate`); without that it
would lose the link from kernels to operators, count every CUDA step twice and have no module page.

`python -m afftool.profile.plugin` is TensorBoard with pages of the plugin's that work without a network too.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from afftool.console import quiet
from afftool.errors import LoadError, UserError
from afftool.process import end_with
from afftool.profile.operators import kind_of, sort_operators
from afftool.profile.summary import CategoryRow, KernelRow, OperatorRow, Tables
from afftool.profile.timeline import CATEGORIES
from afftool.profile.trace import MODULE
from afftool.scratch import scratch
from afftool.written import replacing

PACKAGE = "torch-tb-profiler"
WORKER = "afftool"
LOG_FILE = f"{WORKER}.pt.trace.json.gz"

_RENAMED = {"cuda_runtime": "runtime", "cuda_driver": "runtime"}
_DROPPED = ("gpu_user_annotation", "fwdbwd")


def installed() -> str | None:
    """The plugin's version, or None where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def write_log(translated: dict[str, Any], folder: Path) -> None:
    """Write a trace that `translate` gave as a run that the plugin opens."""
    with replacing(folder / LOG_FILE) as part:
        part.write_bytes(gzip.compress(json.dumps(translated).encode(), compresslevel=6))


def translate(document: dict[str, Any]) -> dict[str, Any]:
    """The same trace in the words of plugin 0.4.3; the original is left as it is.

    CUDA calls get the one category it knows, the device's copies of annotations go (it would count their steps
    again), and module annotations become the events its module page is made from.
    """
    events = []
    for event in document["traceEvents"]:
        category = event.get("cat", "")
        if category in _DROPPED:
            continue
        if category in _RENAMED:
            args = {"External id": 0, **(event.get("args") or {})}
            event = {**event, "cat": _RENAMED[category], "args": args}
        elif event.get("ph") == "X" and not category:
            event = {**event, "cat": "unknown"}
        events.append(event)
    annotations = [e for e in events if e.get("cat") == "user_annotation" and str(e["name"]).startswith(MODULE)]
    if not annotations:
        return {**document, "traceEvents": events}
    others = [e for e in events if not (e.get("cat") == "user_annotation" and str(e["name"]).startswith(MODULE))]
    return {**document, "traceEvents": [*others, *_module_events(annotations)]}


def _module_events(annotations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Module annotations as calls of modules: who called whom comes from how they nest in time."""
    numbers: dict[str, int] = {}
    open_calls: dict[Any, list[tuple[float, int]]] = {}
    for number, event in enumerate(sorted(annotations, key=lambda e: (e["ts"], -e.get("dur", 0))), start=1):
        stack = open_calls.setdefault((event["pid"], event["tid"]), [])
        while stack and event["ts"] >= stack[-1][0]:
            stack.pop()
        parent = stack[-1][1] if stack else None
        stack.append((event["ts"] + event.get("dur", 0), number))
        module = numbers.setdefault(event["name"], len(numbers))
        args = {"Python id": number, "Python parent id": parent, "Python module id": module}
        yield {**event, "cat": "python_function", "args": args}


def read_tables(translated: dict[str, Any]) -> Tables:
    """Tables of a trace that `translate` gave. Raises whatever the plugin raises on a trace it cannot read."""
    # Its warnings are about its own guesses, and pandas warns of the old way it calls it.
    with quiet("pytorch_profiler", logging.ERROR):
        from torch_tb_profiler.profiler.data import RunProfileData

        data = RunProfileData.from_json(WORKER, None, translated)
    return Tables(
        operators=sort_operators(
            OperatorRow(
                name=row.name,
                kind=kind_of(row.name),
                calls=row.calls,
                host_self_us=float(row.self_host_duration),
                host_total_us=float(row.host_duration),
                device_self_us=float(row.self_device_duration),
                device_total_us=float(row.device_duration),
            )
            for row in data.op_list_groupby_name
        ),
        kernels=_kernels(data.kernel_stat),
        # Its categories stand in the same order as ours, the whole step after them.
        categories=[
            CategoryRow(category=name, step_us=float(cost))
            for name, cost in zip(CATEGORIES, data.avg_costs.costs, strict=False)
        ],
        steps_us=[float(step.costs[-1]) for step in data.steps_costs],
    )


def _kernels(stat: Any) -> list[KernelRow]:
    if stat is None:
        return []
    return [
        KernelRow(
            name=str(row.Index),
            calls=int(row.count_),
            total_us=float(row.sum),
            mean_us=float(row.mean),
            min_us=float(row.min),
            max_us=float(row.max),
            occupancy_percent=_told(row.occupancy),
            blocks_per_sm=_told(row.blocks_per_sm),
        )
        for row in stat.rename(columns={"count": "count_"}).itertuples()
    ]


_ADDRESS = re.compile(r"http://\S+")
_PAGE = "#pytorch_profiler"
_OTHER_PORT = "try another --port, or none, which takes any that is free"


def check_port(port: int) -> None:
    """Refuse a port that TensorBoard could not have, before any work. Raises `UserError`; 0 is any that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was used a moment ago is free
        try:
            probe.bind((OWN_NAMES[0], port))
        except OSError as error:
            raise UserError(f"port {port} cannot be had: {error.strerror}", hint=_OTHER_PORT) from error


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
            hint=f"pip install {PACKAGE}; the report and trace.json.gz (ui.perfetto.dev) need neither",
        )
    command = [sys.executable, "-P", "-m", "afftool.profile.plugin", "--logdir", str(log), "--host", "127.0.0.1"]
    with scratch() as folder:
        words = Path(folder) / "tensorboard.log"
        with words.open("wb") as output:
            # A session of its own: a Ctrl-C in the terminal reaches us alone, and we stop it in order.
            server = subprocess.Popen(
                [*command, "--port", str(port), "--load_fast", "false"],
                stdout=output,
                stderr=output,
                stdin=subprocess.PIPE,  # its end is how the server knows that this process is gone
                env={**os.environ, "TMPDIR": folder},  # where it notes that it runs: what is killed takes no note away
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
            raise LoadError(f"TensorBoard did not start: {_last_line(said)}", hint=_OTHER_PORT)
        time.sleep(0.1)
    raise LoadError(f"TensorBoard did not come up within {patience_s:g} s: {_last_line(words.read_text())}")


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and the processes in which it reads; it holds nothing that needs saving."""
    assert server.stdin is not None
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except (AttributeError, OSError):  # a system without groups, or they are gone
        server.kill()
    server.stdin.close()
    server.wait()


_CHARTS = '<script src="https://www.gstatic.com/charts/loader.js"></script>'
_VIEWER = "trace_viewer_full.html"
_IMPORT = re.compile(rf'<link rel="import" href="{_VIEWER}"[^>]*>')
_POLYFILL = re.compile(r'<script src="https://[^"]*webcomponents[^"]*"></script>')
_READY = """<script>
addEventListener("DOMContentLoaded", () => document.dispatchEvent(new Event("WebComponentsReady")));
</script>"""


def work_without_network() -> None:
    """Let the plugin's pages work where nothing can be loaded from the network; without it they stay empty.

    Google Charts gets a stand-in for when it does not load (`charts.js`). The trace viewer is put into its page, which
    used to import it as no browser does any more, with what it needs of the old custom elements (`elements.js`)
    in place of the polyfill it loaded from elsewhere.
    """
    from torch_tb_profiler.plugin import TorchProfilerPlugin
    from werkzeug import Request, Response

    serve = TorchProfilerPlugin.static_file_route

    def static_file_route(plugin: Any, environ: Any, start_response: Any) -> Any:
        page = Response.from_app(lambda e, s: serve(plugin, e, s), Request(environ).environ)
        folder, _, name = environ["PATH_INFO"].rpartition("/")
        if name == "index.html":
            stand_in = (Path(__file__).parent / "charts.js").read_text()
            page.set_data(page.get_data(as_text=True).replace(_CHARTS, f"{_CHARTS}<script>{stand_in}</script>"))
        elif name == "trace_embedding.html":
            viewer = Response.from_app(
                lambda e, s: serve(plugin, e, s), {**environ, "PATH_INFO": f"{folder}/{_VIEWER}"}
            )
            elements = (Path(__file__).parent / "elements.js").read_text()
            text = _POLYFILL.sub(lambda _: f"<script>{elements}</script>", page.get_data(as_text=True))
            page.set_data(_IMPORT.sub(lambda _: viewer.get_data(as_text=True) + _READY, text))
        return page(environ, start_response)

    TorchProfilerPlugin.static_file_route = static_file_route


OWN_NAMES = ("127.0.0.1", "localhost", "::1")
"""What a browser on this machine calls it, whichever port a tunnel has."""


def only_by_own_name(app: Any) -> Any:
    """A WSGI application that answers a request to this machine's own names, and refuses any other.

    TensorBoard answers to every name, so a page from elsewhere could read the log: its own name, resolved anew, leads
    the browser here.
    """

    def guarded(environ: Any, start_response: Any) -> Any:
        try:
            name = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname
        except ValueError:
            name = None
        if name in OWN_NAMES:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"this page is at {OWN_NAMES[0]} alone\n".encode()]

    return guarded


def main() -> None:
    """Run TensorBoard with this process's arguments, until the process that started it ends, whatever ended that."""
    end_with(sys.stdin.fileno())
    from absl import app
    from tensorboard import default, main_lib, program

    def server(wsgi_app: Any, flags: Any) -> Any:
        return program.create_port_scanning_werkzeug_server(only_by_own_name(wsgi_app), flags)

    main_lib.global_init()
    work_without_network()
    board = program.TensorBoard(default.get_plugins(), server_class=server)
    app.run(board.main, flags_parser=board.configure)


if __name__ == "__main__":  # the plugin's workers import this file again
    main()


def _told(figure: Any) -> float | None:
    """A figure of pandas, None where it has none: JSON has no word for NaN, and refuses it."""
    return float(figure) if math.isfinite(figure) else None
