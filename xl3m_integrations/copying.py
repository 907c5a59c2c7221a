"""Copies of what a document or node holds beside its text, so that no result shares it with what was passed in."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def copied(known: Mapping[K, V]) -> dict[K, V]:
    """A copy of metadata or relationships; what cannot be copied in them, such as a lock or an open file, is shared."""
    return {key: _copied(value) for key, value in known.items()}


def _copied(value: V) -> V:
    try:
        return deepcopy(value)
    except Exception:  # any object may be in them, and refuses in its own way
        return value
