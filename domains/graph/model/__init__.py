"""Networks for links: features → encoder → posterior of each node → decoder → logits of pairs."""

from domains.graph.model.decoders import CosineDecoder, Decoder, InnerProduct, pairs_softplus
from domains.graph.model.encoders import GCN, Encoder, HopEncoder, LinearGCN, NormalisedGCN
from domains.graph.model.features import FeatureScaling, chosen
from domains.graph.model.links import LinkModel, build
from domains.graph.model.propagation import Adjacency

__all__ = [
    "GCN",
    "Adjacency",
    "CosineDecoder",
    "Decoder",
    "Encoder",
    "FeatureScaling",
    "HopEncoder",
    "InnerProduct",
    "LinearGCN",
    "LinkModel",
    "NormalisedGCN",
    "build",
    "chosen",
    "pairs_softplus",
]
