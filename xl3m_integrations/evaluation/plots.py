"""Pictures of an evaluation: the length x depth heat map, and each method's figures against length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.rankers import require
from xl3m_integrations.evaluation.results import Cell, Evaluation, Record
from xl3m_integrations.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"contains": "answer holds the value", "exact": "answer is the value"}
_MARKS = "os^vD*XP<>hp"


def heat_map(evaluation: Evaluation, figure: str = "contains", method: str = "xl3m", bins: int | None = None) -> Figure:
    """A figure by length (across) and depth (down), in each field the mean and the n behind it.

    Args:
        evaluation: What was measured, generated documents only.
        figure: Name of a cell's figure: `contains`, `exact`, `recall@4`, …
        method: Whose.
        bins: Into how many parts the depth is divided; None takes 10 where a length has 30 examples or more, else 5.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingError: There is nothing of the method to show.
    """
    lengths = sorted({record.length for record in _records(evaluation, method) if record.length is not None})
    if not lengths:
        raise SettingError(f"The evaluation has no generated documents that {method} answered, so there is no map.")
    if bins is None:
        bins = 10 if len(_records(evaluation, method)) >= 30 * len(lengths) else 5
    cells = {
        (cell.key["length"], cell.key["depth"]): cell
        for cell in evaluation.cells(by=("method", "length", "depth"), bins=bins)
        if cell.key["method"] == method
    }
    drawn, axes = new_figure(1.6 + 1.1 * len(lengths), 1.2 + 0.42 * bins)
    estimates = [[_estimate(cells.get((length, depth)), figure) for length in lengths] for depth in range(bins)]
    values = [[float("nan") if one is None else one[0] for one in row] for row in estimates]
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for down, row in enumerate(estimates):
        for across, one in enumerate(row):
            if one is not None:
                colour = "black" if one[0] > 0.6 else "white"
                axes.text(across, down, f"{one[0]:.2f}\nn={one[1]}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(bins), [f"{100 * depth // bins}-{100 * (depth + 1) // bins}%" for depth in range(bins)])
    axes.set_xlabel("length, tokens")
    axes.set_ylabel("depth")
    axes.set_title(f"{method}: {TITLES.get(figure, figure)}", fontsize=10)
    drawn.colorbar(image, ax=axes)
    return drawn


def by_length(evaluation: Evaluation, figure: str = "recall@1") -> Figure:
    """A figure of every method against length, with its 95% intervals.

    Args:
        evaluation: What was measured, generated documents only.
        figure: Name of a cell's figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    cells = [cell for cell in evaluation.cells(by=("method", "length")) if cell.key["length"] is not None]
    drawn, axes = new_figure(7.5, 4.5)
    for number, method in enumerate(evaluation.settings["methods"]):
        own = sorted((cell for cell in cells if cell.key["method"] == method), key=lambda cell: int(cell.key["length"]))
        points = [(cell.key["length"], one) for cell in own if (one := cell.figures.get(figure)) is not None]
        if not points:
            continue
        values = [one.value for _, one in points]
        below = [max(0.0, one.value - one.low) for _, one in points]
        above = [max(0.0, one.high - one.value) for _, one in points]
        ns = sorted({one.n for _, one in points})
        spread = f"{ns[0]}" if len(ns) == 1 else f"{ns[0]}-{ns[-1]}"
        axes.errorbar(
            [length * 1.012**number for length, _ in points],  # side by side, so that no interval hides another
            values,
            yerr=[below, above],
            marker=_MARKS[number % len(_MARKS)],
            linewidth=2.2 if method == "xl3m" else 1.2,
            elinewidth=1,
            capsize=2,
            label=f"{method} (n={spread})",
        )
    lengths = sorted({int(cell.key["length"]) for cell in cells})
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("length, tokens")
    axes.set_ylabel(TITLES.get(figure, figure))
    if axes.lines:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return drawn


def write_plots(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write PNG files: recall@1, recall@4 and answers against length, and a heat map of every method that answered.

    Args:
        evaluation: What was measured.
        folder: Where to; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingError: There is nothing to draw: no generated document was answered.
    """
    require_plots()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    answered = [m for m in evaluation.settings["methods"] if any(r.length for r in _records(evaluation, m))]
    if not answered:
        raise SettingError("There is nothing to draw: no generated document was answered.")
    figures = {f"{name.replace('@', '-')}-by-length": by_length(evaluation, name) for name in _DRAWN}
    figures |= {f"heat-map-{method}": heat_map(evaluation, method=method) for method in answered}
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]


def require_plots() -> None:
    """Make sure that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "Drawing plots", "eval")


_DRAWN = ("recall@1", "recall@4", "contains")


def _records(evaluation: Evaluation, method: str) -> list[Record]:
    return [record for record in evaluation.records if record.method == method and record.error is None]


def _estimate(cell: Cell | None, figure: str) -> tuple[float, int] | None:
    one = None if cell is None else cell.figures.get(figure)
    return None if one is None else (one.value, one.n)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches, and its axes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_plots()
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")  # no pyplot, so nothing is kept or shown
    return drawn, drawn.add_subplot()


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; gives the path back."""
    with replacing(path) as beside:
        figure.savefig(beside, dpi=150, format="png")
    return path
