"""Raw graphs → a validated, split and fingerprinted dataset → what a model sees at each step."""

from domains.graph.data.batches import LinkBatches, batches, feature_tensor
from domains.graph.data.negatives import corruptions
from domains.graph.data.pairs import both_ways, generator
from domains.graph.data.records import Dataset, Graph, LinkSplit
from domains.graph.data.splits import split_hash, split_links
from domains.graph.data.store import load, prepare

__all__ = [
    "Dataset",
    "Graph",
    "LinkBatches",
    "LinkSplit",
    "batches",
    "both_ways",
    "corruptions",
    "feature_tensor",
    "generator",
    "load",
    "prepare",
    "split_hash",
    "split_links",
]
