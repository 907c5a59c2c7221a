"""The command line, run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from xl3m_integrations.cli import app


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def run_json(*arguments: str, stdin: bytes | None = None) -> dict[str, Any]:
    """What is printed with `--json`, which is all that is printed."""
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write(folder: Path, **texts: str) -> dict[str, str]:
    """Files of these texts in `folder`, each named by its keyword and ".txt"; the texts by those names."""
    named = {f"{name}.txt": text for name, text in texts.items()}
    for name, text in named.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    return named
