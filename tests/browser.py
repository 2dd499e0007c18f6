"""A headless Chromium, driven through its own driver by the WebDriver protocol, which is JSON over HTTP: no package is needed."""

import base64
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow import begin, stop

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name under which the protocol hands out elements."""
KEYS = {"Enter": "\ue007", "Tab": "\ue004", " ": " "}


class Browser:
    """One tab of one browser."""

    def __init__(self, port: int, profile: Path, downloads: Path, size: tuple[int, int]):
        self.at = f"http://127.0.0.1:{port}/session"
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        options = {
            "binary": PROGRAMS["chromium"],
            "args": [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"],
            "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
        }
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
        self.at += "/" + self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        # Not the tab that a browser opens by itself, which loads much; what it asked for is forgotten.
        self.go("about:blank")
        self.requests()
        # The window's size is that of the page in it.
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )

    def _ask(self, method: str, path: str, content: dict | None = None) -> object:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.at + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with self.open(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def devtools(self, command: str, **given: object) -> object:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": given})

    def go(self, address: str) -> None:
        self._ask("POST", "/url", {"url": address})

    def run(self, code: str, *given: object) -> object:
        """What a function's body of JavaScript returns."""
        return self._ask("POST", "/execute/sync", {"script": code, "args": list(given)})

    def find(self, selector: str, text: str = "") -> str | None:
        """The first element that can be seen and has the text."""
        found = self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".find(e => e.checkVisibility({visibilityProperty: true}) && e.textContent.includes(arguments[1])) ?? null",
            selector,
            text,
        )
        return found and found[ELEMENT]

    def wait(self, of: Callable[[], object], seconds: float = 60) -> object:
        """What a function returns once that is true; then the page has a minute to come to it."""
        end = time.monotonic() + seconds
        while not (found := of()):
            assert time.monotonic() < end, f"the page still shows: {self.text()}"
            time.sleep(0.02)
        return found

    def text(self) -> str:
        return self.run("return document.body.innerText")

    def click(self, selector: str, text: str = "") -> None:
        """Click with the mouse, once the element can be seen."""
        element = self.wait(lambda: self.find(selector, text))
        self._ask("POST", f"/element/{element}/click", {})

    def press(self, *keys: str) -> None:
        """Press and let go of keys, whatever has the focus."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def log(self) -> list[str]:
        """What the console has shown since the last call."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def events(self) -> list[dict]:
        """What the network has reported since the last call."""
        events = [
            json.loads(entry["message"])["message"] for entry in self._ask("POST", "/se/log", {"type": "performance"})
        ]
        return [event for event in events if event["method"].startswith("Network.")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call, also in vain."""
        return [e["params"]["request"]["url"] for e in self.events() if e["method"] == "Network.requestWillBeSent"]

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of what a screen reader is told of, level by level."""
        nodes = self.devtools("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node["ignored"] and "name" in node]
        return [(node["role"]["value"], node["name"]["value"]) for node in told]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def quit(self) -> None:
        self._ask("DELETE", "")


@contextmanager
def browser(folder: Path, size: tuple[int, int] = (1280, 800)) -> Iterator[Browser]:
    """A browser with a profile of its own; what it downloads lies in `folder`/downloads."""
    profile, downloads = folder / "profile", folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    printed = folder / "driver.txt"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (
        printed.open("w") as file,
        begin([PROGRAMS["chromedriver"], "--port=0"], stdout=file, stderr=file, env=environment) as process,
    ):
        try:
            port = None
            end = time.monotonic() + 60
            while port is None:
                assert time.monotonic() < end, printed.read_text()
                found = re.search(r"successfully on port (\d+)", printed.read_text())
                port = found and int(found[1])
                time.sleep(0.05)
            tab = Browser(port, profile, downloads, size)
            try:
                yield tab
            finally:
                tab.quit()
        finally:
            stop(process)
