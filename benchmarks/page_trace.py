"""What a page costs its main thread, from a trace of the browser: processor time, by kind of work.

Other processes on the machine take none of it, though they slow it down.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from playwright.async_api import Browser, Page

CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "v8", "blink.user_timing"]
KINDS: Mapping[str, str] = {
    "FunctionCall": "script",
    "EvaluateScript": "script",
    "FireAnimationFrame": "script",
    "EventDispatch": "script",
    "TimerFire": "script",
    "RunMicrotasks": "script",
    "v8.compile": "script",
    "v8.compileModule": "script",
    "v8.evaluateModule": "script",
    "MinorGC": "script",
    "MajorGC": "script",
    "V8.GC_MC_INCREMENTAL": "script",
    "UpdateLayoutTree": "style",
    "ParseAuthorStyleSheet": "style",
    "Layout": "layout",
    "PrePaint": "paint",
    "Paint": "paint",
    "Layerize": "paint",
    "Commit": "paint",
    "UpdateLayer": "paint",
    "ParseHTML": "html",
}
"""Names of events in the trace, and what they are; the rest of a task is "other"."""
FRAME = "FireAnimationFrame"


class Trace:
    """Tasks of the main thread, each with its processor time in milliseconds by kind."""

    def __init__(self, raw: bytes) -> None:
        """Of a trace as the browser gives it."""
        events = json.loads(raw)["traceEvents"]
        threads = {
            (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
        }
        mine = [e for e in events if (e["pid"], e["tid"]) in threads and e.get("ph") == "X" and "tdur" in e]
        busiest = Counter((e["pid"], e["tid"]) for e in mine).most_common(1)
        self.begins: list[bool] = []
        """Whether a task begins a frame: the page asked for it (requestAnimationFrame) and is called in it."""
        self.tasks: list[Counter[str]] = []
        self.names: Counter[str] = Counter()
        """Own processor time of each kind of event, for who wants to know more."""
        if busiest:
            self._read([e for e in mine if (e["pid"], e["tid"]) == busiest[0][0]])

    def _read(self, events: Sequence[dict[str, Any]]) -> None:
        """Own times of nested events; an event's kind is that of the nearest around it that has one."""
        open_: list[tuple[float, str, str]] = []
        for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
            while open_ and event["ts"] >= open_[-1][0]:
                open_.pop()
            took_ms = event["tdur"] / 1_000
            if not open_:
                self.begins.append(False)
                self.tasks.append(Counter())
            self.begins[-1] |= event["name"] == FRAME
            kind = KINDS.get(event["name"], open_[-1][1] if open_ else "other")
            self.tasks[-1][kind] += took_ms
            self.names[event["name"]] += took_ms
            if open_:
                self.tasks[-1][open_[-1][1]] -= took_ms
                self.names[open_[-1][2]] -= took_ms
            open_.append((event["ts"] + event["dur"], kind, event["name"]))

    def total(self) -> Counter[str]:
        """Of all tasks together."""
        return sum(self.tasks, Counter())

    def frames(self) -> list[Counter[str]]:
        """The tasks from each frame's begin to the next one's, but those of the first and the last."""
        found: list[Counter[str]] = []
        for begins, task in zip(self.begins, self.tasks, strict=True):
            if begins:
                found.append(Counter())
            if found:
                found[-1].update(task)
        return found[1:-1]


async def start(browser: Browser, page: Page) -> None:
    """Begin to record."""
    await browser.start_tracing(page=page, categories=CATEGORIES)


async def stop(browser: Browser) -> Trace:
    """What was recorded."""
    return Trace(await browser.stop_tracing())
