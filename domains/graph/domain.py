"""The record that the rest of the system knows this domain by."""

from __future__ import annotations

from pathlib import Path

from core.contract import Domain, Split
from core.runtime.folder import say
from domains.graph import cli, data, metrics, model, plots
from domains.graph.config import CONFIG, Config, resolve

SHOWN_LINKS = 100


def batches(config: Config, folder: Path, split: Split) -> data.LinkBatches:
    """The batches of a split, with what the size of the graph decides settled and said."""
    dataset = data.load(folder)
    settled, words = resolve(config, len(dataset.names))
    if split == "train":
        say(f"graph: {words}")
    return data.batches(settled, folder, split)  # pyright: ignore[reportArgumentType]


def examples(config: Config, folder: Path, chosen: model.LinkModel, out: Path) -> None:
    """Write the most probable new links and a vector for each node.

    ``links.csv`` has source, target, probability (calibrated, for a pair that is as likely a link
    as not), rank; ``embeddings.npy`` the posterior means, in the order of
    ``embeddings.nodes.txt``. All links of the graph carry messages here.
    """
    dataset = data.load(folder)
    known = data.whole(dataset)
    found = metrics.new_links(chosen, known, SHOWN_LINKS)
    table = cli.link_table(cli.Trained(config, dataset, chosen), known, *found)
    out.mkdir(parents=True, exist_ok=True)
    cli.TABLES[".csv"](out / "links.csv", table)
    vectors = chosen.embed(known.graph.to(next(chosen.parameters()).device)).cpu().numpy()
    columns = {f"z{place}": column for place, column in enumerate(vectors.T)}
    cli.VECTORS[".npy"](out / "embeddings.npy", {"node": known.names, **columns})


DOMAIN: Domain[Config, data.Graph, model.LinkModel] = Domain(
    name="graph",
    config=CONFIG,
    prepare=data.prepare,  # pyright: ignore[reportArgumentType]
    batches=batches,
    model=model.build,
    validate=metrics.validate,
    metrics=metrics.metrics,
    plots=plots.plots,
    examples=examples,
    verbs=cli.VERBS,
)
