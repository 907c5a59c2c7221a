"""What stands in a document is shown, and drives no terminal."""

from __future__ import annotations

_CONTROL_PICTURES: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"},
    **dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
    0x7F: "\u2421",
}


def visible(text: str) -> str:
    """`text` with controls of terminal and writing direction replaced, so that no document drives the terminal."""
    return text.translate(_CONTROL_PICTURES)
