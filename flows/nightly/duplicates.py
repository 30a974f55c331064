"""Duplicate slides of one night: one of those with the same content is segmented, the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping


class DuplicateSlides:
    """Contents in progress, each with the slide that is segmented for it. Safe to use from several threads."""

    def __init__(self) -> None:
        self._slides: dict[tuple[str, frozenset[tuple[str, str]]], str] = {}
        self._changed = threading.Condition()

    def first_with(self, fingerprint: str, asked: Mapping[str, str], slide: str) -> str:
        """The slide that a content, with what is asked for it, is being segmented for: this one, if for no other."""
        with self._changed:
            return self._slides.setdefault((fingerprint, frozenset(asked.items())), slide)

    def release(self, slide: str) -> None:
        """Release a slide whose outcome is recorded."""
        with self._changed:
            self._slides = {content: other for content, other in self._slides.items() if other != slide}
            self._changed.notify_all()

    def in_progress(self, slides: Collection[str], timeout: float) -> set[str]:
        """Those of some slides that are being segmented, as soon as one isn't, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not set(slides) <= set(self._slides.values()), timeout)
            return set(slides) & set(self._slides.values())
