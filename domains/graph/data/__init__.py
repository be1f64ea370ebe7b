"""Raw graphs → a validated, split and fingerprinted dataset → what a model sees at each step."""

from domains.graph.data.batches import LinkBatches, batches, feature_tensor
from domains.graph.data.negatives import corruptions, uniform
from domains.graph.data.pairs import both_ways, generator
from domains.graph.data.readers import read
from domains.graph.data.records import Dataset, Graph, LinkSplit, RawGraph
from domains.graph.data.splits import split_hash, split_links
from domains.graph.data.store import check_features, clean, load, prepare
from domains.graph.data.unseen import Known, new_graph, whole

__all__ = [
    "Dataset",
    "Graph",
    "Known",
    "LinkBatches",
    "LinkSplit",
    "RawGraph",
    "batches",
    "both_ways",
    "check_features",
    "clean",
    "corruptions",
    "feature_tensor",
    "generator",
    "load",
    "new_graph",
    "prepare",
    "read",
    "split_hash",
    "split_links",
    "uniform",
    "whole",
]
