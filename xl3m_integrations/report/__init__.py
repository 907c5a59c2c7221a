"""Pictures of a selection: a self-contained HTML page with the certainty map of the whole document, and a plot.

`Selection.to_html`, `Answer.to_html` and `Selection.plot` are the ways in.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from xl3m_integrations.errors import MissingExtraError, SettingError
from xl3m_integrations.writing import replacing

if TYPE_CHECKING:
    from xl3m_integrations.types import Answer, Selection


def framed(shown: Selection | Answer) -> str | None:
    """The page in a frame of its own, as a notebook's cell shows it; None where the extra `report` is missing."""
    try:
        page = shown.to_html()
    except MissingExtraError:
        return None
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="Certainty map" '
        'style="width:100%;height:640px;border:0;border-radius:8px"></iframe>'
    )


def require_writable(path: Path) -> None:
    """Refuse early what `write` could not write later.

    Raises:
        SettingError: `path` is a folder, or in one that does not exist.
    """
    if path.is_dir():
        raise SettingError(f"{path} is a folder; give the name of a file to write.")
    if not path.parent.is_dir():
        raise SettingError(f"{path} cannot be written, because the folder {path.parent} does not exist; make it first.")


def write(path: Path, page: str) -> None:
    """Write a page to a file; one that is there is replaced at once, by the whole new one or not at all."""
    data = page.encode("utf-8", "xmlcharrefreplace")
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_bytes(data)
        return
    with replacing(path) as beside:
        beside.write_bytes(data)
