"""`afftool profile FOLDER --open` in a real browser: the plugin's pages show the figures of our report.

One test, for one start of TensorBoard and of Chromium. It needs no network: the pages' stand-ins are part of the test.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afftool.profile.plugin import tensorboard
from afftool.profile.run import Profiled

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("torch_tb_profiler")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

PATIENCE_S = 90
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1200",
    # What the test sees must not depend on whether the machine has a network.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.skip(f"{name} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    driver.set_script_timeout(PATIENCE_S)
    yield driver
    driver.quit()


@pytest.fixture
def opened(traced: Profiled, traced_addition: Profiled) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that the command prints, and the command while it runs."""
    command = [sys.executable, "-m", "afftool", "profile", str(traced.folder), str(traced_addition.folder), "--open"]
    process = subprocess.Popen(["nohup", *command], stdout=subprocess.PIPE, text=True, cwd=traced.folder)
    try:
        assert process.stdout is not None
        address = next((line for line in process.stdout if line.startswith("TensorBoard: ")), "")
        yield address.split()[1] if address else "", process
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_tensorboard_shows_the_figures_of_the_report(
    traced: Profiled, browser: Any, opened: tuple[str, subprocess.Popen[str]]
) -> None:
    address, process = opened
    assert re.match(r"http://127\.0\.0\.1:\d+/", address), "on the loopback only"
    pages = _Pages(browser, address, traced.folder.name)
    profile = traced.profile

    overview = pages.rows("Overview", ".afftool-chart")
    shown = {name: values for name, *values in overview}
    for row in profile.categories:
        if row.category in ("CPU Exec", "Other", "DataLoader"):
            assert float(shown[row.category][0]) == round(row.step_us)
    assert float(shown["Average Step Time"][0]) == round(profile.step_us)
    for step, whole in zip(overview[-len(profile.steps_us) :], profile.steps_us, strict=True):
        assert sum(map(float, step[1:])) == pytest.approx(whole, abs=0.01)

    operators = {name: values for name, *values in pages.rows("Operator", ".ant-table-tbody tr")}
    first = profile.operators[: len(operators)]
    assert len(operators) >= 10
    assert {row.name for row in first} == set(operators)
    for row in first:
        assert [float(v) for v in operators[row.name][:3]] == [
            row.calls,
            round(row.host_self_us),
            round(row.host_total_us),
        ]

    (root,) = [
        cells for cells in pages.rows("Module", ".afftool-chart, .ant-table-tbody tr") if cells[0] == ". (GatedFusion)"
    ][:1]
    assert float(root[1]) == profile.modules[0].calls
    assert float(root[3]) == pytest.approx(profile.modules[0].forward_us, abs=0.01)

    titles = pages.trace_titles()
    for row in profile.operators:
        assert titles[row.name] >= row.calls, "an operator that only calls its namesake is drawn as two"
    assert sum(title.startswith("ProfilerStep#") for title in titles) == len(profile.steps_us)
    assert titles["nn.Module: local_att2.4 (BatchNorm2d)"] == len(profile.steps_us)

    process.send_signal(signal.SIGHUP)  # the terminal closes, which under `nohup` is nothing to it
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 0
    port = int(address.split(":")[2].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "Ctrl-C stops the server too"


def test_the_server_ends_with_the_command_whatever_ends_that(opened: tuple[str, subprocess.Popen[str]]) -> None:
    address, process = opened
    process.kill()
    port = int(address.split(":")[2].split("/")[0])
    deadline = time.monotonic() + PATIENCE_S
    refused = False
    while not refused and time.monotonic() < deadline:
        with socket.socket() as probe:
            refused = probe.connect_ex(("127.0.0.1", port)) != 0
        time.sleep(0.05)
    assert refused


def test_opening_a_folder_without_a_log_says_so(tmp_path: Path) -> None:
    from afftool.errors import LoadError

    with pytest.raises(LoadError, match="no TensorBoard log"), tensorboard(tmp_path):
        pass


class _Pages:
    """The plugin's pages, one view at a time."""

    def __init__(self, browser: Any, address: str, run: str) -> None:
        self.browser = browser
        browser.get(address)
        self._wait(lambda: browser.find_elements(By.TAG_NAME, "iframe"))
        browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
        # Runs load one after the other, and the page takes the first: choose ours, whichever that is.
        self._wait(lambda: "Overview" in self._chosen())
        if run not in self._chosen():
            self._wait(lambda: self._choose(self._chosen()[0], run))
        self._wait(lambda: run in self._chosen())

    def rows(self, view: str, selector: str) -> list[list[str]]:
        """The cells of every table row of a view that `selector` finds, once there are any."""
        self._show(view)
        script = """
            return Array.from(document.querySelectorAll(arguments[0])).flatMap((element) => {
              const rows = element.tagName === "TR" ? [element] : Array.from(element.tBodies[0].rows);
              return rows.map((row) => Array.from(row.cells).map((cell) => cell.innerText.trim()));
            });"""
        found: list[list[str]] = self._wait(lambda: self.browser.execute_script(script, selector))
        return found

    def trace_titles(self) -> Counter[str]:
        """How often each title is drawn in the trace viewer."""
        self._show("Trace")
        self._wait(lambda: self.browser.find_elements(By.TAG_NAME, "iframe"))
        self.browser.switch_to.frame(self.browser.find_element(By.TAG_NAME, "iframe"))
        script = """
            const viewer = document.querySelector("#trace-viewer");
            if (!viewer || !viewer.model) return null;
            const slices = Array.from(viewer.model.getDescendantEvents()).filter((e) => e.title && e.duration > 0);
            return slices.map((slice) => slice.title);"""
        return Counter(self._wait(lambda: self.browser.execute_script(script)))

    def _show(self, view: str) -> None:
        current = self._wait(self._view)  # there is none while the page changes to another run
        if current != view:
            self._wait(lambda: self._choose(current, view))
            self._wait(lambda: self._view() == view)

    def _view(self) -> str | None:
        return next((text for text in self._chosen() if text in ("Overview", "Operator", "Module", "Trace")), None)

    def _chosen(self) -> list[str]:
        return [e.text.strip() for e in self.browser.find_elements(By.CSS_SELECTOR, ".MuiSelect-root")]

    def _choose(self, current: str, wanted: str) -> bool:
        options = self.browser.find_elements(By.CSS_SELECTOR, "li[role=option]")
        if not options:
            selects = self.browser.find_elements(By.CSS_SELECTOR, ".MuiSelect-root")
            next(e for e in selects if e.text.strip() == current).click()
            return False
        match = [option for option in options if option.text.strip() == wanted]
        if match:  # handed to the option itself: by the time the mouse is there, an opening menu has moved on
            self.browser.execute_script("arguments[0].click()", match[0])
        return bool(match)

    def _wait(self, condition: Callable[[], Any]) -> Any:
        ignored = self.__class__._passing()
        return WebDriverWait(self.browser, PATIENCE_S, poll_frequency=0.3, ignored_exceptions=ignored).until(
            lambda _: condition()
        )

    @staticmethod
    def _passing() -> tuple[type[Exception], ...]:
        from selenium.common import exceptions

        return (
            exceptions.NoSuchElementException,
            exceptions.StaleElementReferenceException,
            exceptions.ElementClickInterceptedException,
            exceptions.ElementNotInteractableException,
        )
