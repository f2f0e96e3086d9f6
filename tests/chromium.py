"""A headless Chromium that shows a page and tells what it saw: DevTools over a pipe.

Source: Chrome DevTools Protocol; with ``--remote-debugging-pipe`` it reads commands from file
descriptor 3 and writes answers to 4, JSON that ends in a zero byte.
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time

BINARY = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])),
    None,
)
_PATIENCE_S = 60.0


class Browser:
    """One Chromium; :meth:`open` gives it a page."""

    def __init__(self, profile):
        to_it, from_us = os.pipe()
        to_us, from_it = os.pipe()
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 64) for end in (to_it, from_it)]

        def place():  # neither of the two may be overwritten by the other
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [BINARY, *arguments],
            close_fds=False,
            preexec_fn=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in high:
            os.close(end)
        os.close(to_it)
        os.close(from_it)
        self._to, self._from = from_us, to_us
        os.set_blocking(self._from, False)
        self._rest, self._last, self._session, self._target = b"", 0, None, None
        self.console = []  # what the page complained about

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self._send("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._last

    def _messages(self):
        """Yield what comes, for at most a minute."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            try:
                data = os.read(self._from, 1 << 20)
                assert data, "Chromium has gone"
                self._rest += data
            except BlockingIOError:
                time.sleep(0.005)
            *whole, self._rest = self._rest.split(b"\0")
            yield from map(json.loads, whole)
        raise AssertionError("Chromium did not answer")

    def _note(self, message):
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description", str(details)))
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.console.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.console.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "file:", "about:")):
                    self.console.append(f"asks for {url}")

    def call(self, method, **params):
        """Give a command and return its answer; what the page says meanwhile is noted."""
        mine = self._send(method, **params)
        held = []
        for message in self._messages():
            if message.get("id") == mine:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            held.append(message)
            self._note(message)
        return None

    def open(self, path, *, width=1280, height=900, scripts=True, fragment=""):
        """Show a file, and return when it is loaded."""
        self._session = None
        if self._target:
            self.call("Target.closeTarget", targetId=self._target)
        self._target = target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.console = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        mine = self._send("Page.navigate", url=path.as_uri() + f"#{fragment}")
        for message in self._messages():
            self._note(message)
            if message.get("id") == mine:
                assert not message["result"].get("errorText"), message
            if message.get("method") == "Page.loadEventFired":
                return self
        return None

    def size(self, width, height):
        """Give the page a screen of this size, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def media(self, **features):
        """Prefer something: ``media(prefers_color_scheme="dark")``."""
        wanted = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)

    def run(self, script):
        """Return what an expression of JavaScript comes to, in the page."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def point(self, x, y, *, click=False):
        """Move the pointer to a place of the window; click there if asked."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call(
                    "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
                )

    def key(self, name):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def picture(self, path, *, whole=False):
        """Save what is seen as a PNG; the whole page if asked."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))
