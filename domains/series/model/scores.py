"""How surprising each row of a whole series is to a model that filters: to find anomalies by."""

from __future__ import annotations

import numpy as np
import torch

from domains.series.data import Dataset, Panel
from domains.series.data.records import Array
from domains.series.data.windows import gather, rows, step_of
from domains.series.model.structured import StructuredKoopmanVAE


@torch.no_grad()
def row_scores(
    model: StructuredKoopmanVAE, dataset: Dataset, panel: Panel, samples: int = 16
) -> list[Array]:
    r"""Score each row by :math:`-\log p(x_t \mid x_{<t})`, its channels jointly, in nats.

    All rows before count, not those of a window alone, at a cost linear in the length. Exact for a
    linear dynamical system. Nats are of scaled values.

    Args:
        model: In evaluation mode, one that `filters`.
        dataset: What it was trained on.
        panel: Series of the same channels.
        samples: Draws of a row's state behind each density that is not exact.

    Returns:
        Of each series, ``(time,)``; NaN where a row has no value.

    Raises:
        ValueError: If the model does not filter.
    """
    if not model.filters:
        raise ValueError(
            "row_scores: the model cannot tell a row from those before; see `filters`"
        )
    given = rows(panel, None, dataset.scaler, step_of(dataset, panel))
    scores = []
    for series, length in enumerate(np.diff(given.first).tolist()):
        whole = gather(given, np.array([[series, 0]]), length, given.known, given.known)
        surprise = model.surprise_ahead(whole, samples)[0].double()
        scores.append(torch.where(whole.known[0].any(-1), surprise, torch.nan).numpy())
    return scores
