"""Sequential latents: linear-Gaussian chains, their filters and smoothers, dynamics as a prior."""

from core.variational.dynamics.examples import kl_examples
from core.variational.dynamics.gauss_markov import (
    GaussMarkov,
    as_gauss_markov,
    conditional_kl,
    dense,
)
from core.variational.dynamics.linear_dynamics import (
    LinearDynamics,
    LinearDynamicsPath,
    expected_surprise,
)
from core.variational.dynamics.posteriors import GaussMarkovPosterior, MarkovPosterior
from core.variational.dynamics.scan import associative_scan
from core.variational.dynamics.sequence import (
    ConditionalNormals,
    rollout_latent,
    sequence_evidence,
    sequence_latent,
)
from core.variational.dynamics.state_space import (
    Filtered,
    Smoothed,
    StateSpace,
    kalman_filter,
    rts_smoother,
    sequential_kalman_filter,
    sequential_rts_smoother,
    smoothing_distribution,
)
from core.variational.dynamics.steps import Steps, as_steps, cut_padding

__all__ = [
    "ConditionalNormals",
    "Filtered",
    "GaussMarkov",
    "GaussMarkovPosterior",
    "LinearDynamics",
    "LinearDynamicsPath",
    "MarkovPosterior",
    "Smoothed",
    "StateSpace",
    "Steps",
    "as_gauss_markov",
    "as_steps",
    "associative_scan",
    "conditional_kl",
    "cut_padding",
    "dense",
    "expected_surprise",
    "kalman_filter",
    "kl_examples",
    "rollout_latent",
    "rts_smoother",
    "sequence_evidence",
    "sequence_latent",
    "sequential_kalman_filter",
    "sequential_rts_smoother",
    "smoothing_distribution",
]
