"""Progress messages from inside an evaluation to whoever watches it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_MIN_INTERVAL = 0.1  # seconds between two messages
_sink: Callable[[float, str], None] | None = None
_last = float("-inf")


def progress(fraction: float, note: str = "") -> None:
    """Tells the engine how far this evaluation is.

    May be called as often as you like: at most ten messages a second are sent. Does nothing outside an evaluation.

    Args:
        fraction: of the evaluation done, 0 to 1; anything else is clipped.
        note: a few words for the progress bar.
    """
    global _last  # noqa: PLW0603  one channel per process
    if _sink is None:
        return
    now = time.monotonic()
    fraction = float(fraction)
    if now - _last < _MIN_INTERVAL and fraction < 1.0:
        return
    _last = now
    _sink(min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0, str(note)[:120])


def connect(sink: Callable[[float, str], None] | None) -> None:
    """Sets where messages of this process go; None: nowhere."""
    global _sink, _last
    _sink, _last = sink, float("-inf")
