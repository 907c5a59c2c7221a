"""What `xl3m bench --shape` shows."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.table import Table

from xl3m_integrations.cli.console import err, out

if TYPE_CHECKING:
    from xl3m_integrations.throughput import Throughput


def run_shape(
    shape: str,
    tokens: int,
    seed: int,
    repeats: int,
    *,
    device: str | None,
    dtype: str | None,
    measure: str | None,
    as_json: bool,
) -> None:
    """Measure and show."""
    with err.status("timing"):
        from xl3m_integrations.throughput import measure_throughput

        found = measure_throughput(shape, tokens, repeats, seed, device=device, dtype=dtype, measure=measure)
    if as_json:
        print(json.dumps(asdict(found) | {"seed": seed}))  # noqa: T201
    else:
        _show(found, seed)


def _show(found: Throughput, seed: int) -> None:
    table = Table(title=f"{found.parameters:,} random parameters, {found.device_name}, {found.dtype}, seed {seed}")
    table.add_column("what")
    table.add_column("rate", justify="right")
    table.add_row("tokens that the model reads", f"{found.read_tokens_per_second:,.0f}/s")
    table.add_row("tokens of text selected from", f"{found.document_tokens_per_second:,.0f}/s")
    table.add_row("selection, end to end", f"{found.flops / 1e12:,.3f} TFLOP/s")
    table.add_row(f"product of two {found.matmul_size:,}² matrices", f"{found.matmul_flops / 1e12:,.3f} TFLOP/s")
    out.print(table)
    out.print(f"selection / matrix product: [bold]{found.ratio:.2f}[/]")
    long = timedelta(seconds=round(found.long_seconds))
    out.print(f"20 million tokens of text at this rate: [bold]{long}[/], projected from {found.tokens:,}")
