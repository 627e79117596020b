"""A real browser for tests: Chromium as it is installed, headless, driven by Playwright."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
#: Says so if anything runs that came with the data.
_TRAP = """
window.pwned = () => console.log("PWNED");
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => console.log("PWNED");
"""
_FOREIGN = """() => {
  const found = [];
  for (const one of document.querySelectorAll("*")) {
    const tag = one.tagName.toLowerCase();
    if (["iframe", "object", "embed", "base", "template", "style", "audio", "video"].includes(tag)
        && !(tag === "style" && one.parentElement === document.head)) found.push(tag);
    if (tag === "script" && one.getAttribute("src") !== "/keys.js") found.push("script");
    for (const a of one.attributes) {
      if (a.name.startsWith("on") || a.name === "style") found.push(tag + " " + a.name);
      if (["href", "src", "action", "formaction"].includes(a.name)
          && /^(javascript|vbscript):/i.test(a.value.trim())) found.push(tag + " " + a.name);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; the test is left out where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        # Its own sandbox needs what containers forbid; it sees nothing here but our pages.
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass
class Watched:
    """A page, and all that should not have happened on it."""

    page: Page
    alarms: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Nothing has run, and nothing stands in the page that could."""
        self.page.wait_for_load_state("load")
        self.alarms += self.page.evaluate(_FOREIGN)
        assert not self.alarms, (self.page.url, self.alarms)


@contextmanager
def watching(browser: Browser, home: str, **settings: Any) -> Iterator[Watched]:
    """Open a page that tells of everything that runs, or is asked of others than `home`."""
    context = browser.new_context(**settings)
    context.add_init_script(_TRAP)
    page = context.new_page()
    watched = Watched(page)

    def heard(text: str) -> None:
        # A policy that had to refuse something means that markup of a stranger was in the page.
        if "PWNED" in text or "Content Security Policy" in text:
            watched.alarms.append(text)

    def asked(url: str) -> None:
        if not url.startswith((home, "data:", "about:")):
            watched.alarms.append(f"asked for {url}")

    page.on("console", lambda message: heard(message.text))
    page.on("pageerror", lambda error: watched.alarms.append(str(error)))
    page.on("dialog", lambda dialog: watched.alarms.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: asked(request.url))
    yield watched
    context.close()


def faults(page: Page, *rules: str) -> list[str]:
    """The serious faults of accessibility that axe-core finds, by some rules or by all."""
    # Without its style a page has other colours.
    page.wait_for_load_state("load")
    page.evaluate(AXE.read_text(encoding="utf-8") + "; null")
    run = "rules => axe.run(document, {resultTypes: ['violations'], ...rules})"
    found = page.evaluate(run, {"runOnly": list(rules)} if rules else {})
    grave = [v for v in found["violations"] if v["impact"] in {"serious", "critical"}]
    return [f"{v['id']}: {node['html']}" for v in grave for node in v["nodes"]]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on a port of this machine, and give its address."""
    import uvicorn

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        with suppress(RuntimeError):
            thread.join(20)
