"""What `xl3m eval` shows and writes: progress, tables, the JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from xl3m_integrations.cli.console import err, out
from xl3m_integrations.errors import SettingError
from xl3m_integrations.writing import replacing

if TYPE_CHECKING:
    from xl3m_integrations.benchmarks.peers import Comparison
    from xl3m_integrations.evaluation import Cell, Estimate, Evaluation, EvaluationProgress

_SHARES = ("recall@1", "recall@4", "all@4", "recall@16", "exact", "contains")


@contextmanager
def evaluation_bar(*, quiet: bool) -> Iterator[Callable[[EvaluationProgress], None] | None]:
    """A progress bar on standard error; gives `evaluate`'s callback, or None where it should be quiet."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda at: bar.update(task, completed=at.done, total=at.total, description=at.label)


def show_evaluation(evaluation: Evaluation) -> None:
    """Tables by length and by task, with what was left out."""
    settings = evaluation.settings
    out.print(
        f"{settings['model']}, window {settings['window']:,}, segments of {settings['segment_tokens']} tokens, seed "
        f"{settings['seed']}. Shares in %, below them the 95% interval.\n",
        markup=False,
    )
    if len(settings["tasks"]) > 1:
        _tables(evaluation, ("length",))
    _tables(evaluation, ("task", "length"))
    for method, reason in evaluation.left_out.items():
        out.print(f"Left out where it cannot run: {method}. {reason}", markup=False, soft_wrap=True, style="dim")
    if not evaluation.complete:
        out.print("[bold]The run ended early[/], by the time limit or an interrupt; each n is what was reached.")


def _tables(evaluation: Evaluation, by: Sequence[str]) -> None:
    """One table for each group, a row for each method."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in evaluation.cells(by=(*by, "method")):
        groups.setdefault(tuple(cell.key[name] for name in by), []).append(cell)
    several = any(cell.figures["recall@4"] != cell.figures["all@4"] for cells in groups.values() for cell in cells)
    said = any(cell.figures["auroc"] for cells in groups.values() for cell in cells)
    shares = [name for name in _SHARES if several or name != "all@4"] + ["auroc", "found"] * said
    for (*task, length), cells in groups.items():
        title = f"{task[0] if task else 'all tasks'}, {'as given' if length is None else f'{length:,} tokens'}"
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            show_edge=False,
        )
        table.add_column("method", no_wrap=True)
        for name in ("n", *shares, "tokens kept", "seconds"):
            table.add_column(name.replace("@", "\n@").replace(" ", "\n"), justify="right")  # 80 columns must do
        for cell in cells:
            table.add_row(*_row(cell, shares))
        out.print(table)


def _row(cell: Cell, shares: Sequence[str]) -> list[str]:
    n = str(cell.n) + (f" ({cell.errors} failed)" if cell.errors else "")
    tokens, seconds = cell.figures["kept_tokens"], cell.figures["seconds"]
    costs = ("-" if tokens is None else f"{tokens.value:,.0f}", "-" if seconds is None else f"{seconds.value:.2f}")
    return [str(cell.key["method"]), n, *(_share(cell.figures[name]) for name in shares), *costs]


def _share(one: Estimate | None) -> str:
    return "-" if one is None else f"{100 * one.value:.0f}\n{100 * one.low:.0f}-{100 * one.high:.0f}"


def write_json(measured: Evaluation | Comparison, path: Path) -> None:
    """Write what was measured as one JSON object, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(measured.to_json() + "\n", encoding="utf-8")


def require_writable(file: Path | None, folder: Path | None) -> None:
    """Refuse, before hours of work, what could not be written after them; the folder is made.

    Raises:
        SettingError: The file is a folder or its folder is not there, or the folder cannot be made.
    """
    if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
        raise SettingError(f"{file} cannot be written: it is a folder, or its folder is not there. Name another file.")
    if folder is not None:
        from xl3m_integrations.evaluation import require_plots

        require_plots()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"The folder {folder} cannot be made: {error.strerror}. Name another.") from error


def names_of(text: str | None) -> list[str] | None:
    """Names between commas; None where the option was left out."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def lengths_of(text: str) -> list[int]:
    """Lengths as the command takes them: `8000,64000`, or `8k,1m`.

    Raises:
        SettingError: One is no whole number.
    """
    units = {"k": 1_000, "m": 1_000_000}
    lengths = []
    for part in (part.strip().lower() for part in text.split(",") if part.strip()):
        digits, factor = (part[:-1], units[part[-1]]) if part[-1] in units else (part, 1)
        if not digits.isdecimal():
            raise SettingError(f"The length {part!r} is no whole number of tokens; write, for instance, 8000,64k,1m.")
        lengths.append(int(digits) * factor)
    return lengths
