"""How well selection works, measured: tasks made fresh from a seed, baselines in the same run, figures with intervals.

from xl3m_integrations.evaluation import evaluate

evaluation = evaluate(tasks=["niah_single", "lookalike"], lengths=[8_000], n=20, seed=1)
for cell in evaluation.cells(by=("method", "length")):
print(cell.key, cell.n, cell.figures["recall@1"], cell.figures["contains"])
"""

from __future__ import annotations

from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.evaluation.methods import METHODS
from xl3m_integrations.evaluation.metrics import Estimate
from xl3m_integrations.evaluation.plots import by_length, heat_map, require_plots, write_plots
from xl3m_integrations.evaluation.results import Cell, Evaluation, Record
from xl3m_integrations.evaluation.rows import load_rows
from xl3m_integrations.evaluation.runner import EvaluationProgress, evaluate
from xl3m_integrations.evaluation.tasks import TASKS

__all__ = [
    "METHODS",
    "TASKS",
    "Cell",
    "Estimate",
    "Evaluation",
    "EvaluationProgress",
    "Example",
    "Record",
    "by_length",
    "evaluate",
    "heat_map",
    "load_rows",
    "require_plots",
    "write_plots",
]
