"""What a trained model's latents are worth: likelihood, active units, information, calibration.

Every function here looks at the model in evaluation mode, without gradients kept and with random
numbers of its own: looking never changes a training.
"""

from core.variational.diagnostics.activity import (
    LatentUse,
    active_units,
    latent_use,
    posterior_means,
)
from core.variational.diagnostics.aggregate import (
    Aggregated,
    TwoSample,
    aggregated_posterior,
    energy_distance,
    energy_test,
)
from core.variational.diagnostics.calibration import (
    CalibrationError,
    Coverage,
    calibration_error,
    central_coverage,
    likelihood_coverage,
    probability_integral,
)
from core.variational.diagnostics.collapse import (
    CollapsePrediction,
    collapse_prediction,
    predicted_collapse,
)
from core.variational.diagnostics.diagnosis import (
    Diagnosis,
    Histogram,
    Importance,
    LatentDiagnosis,
    diagnose,
    k_hat_histogram,
)
from core.variational.diagnostics.estimate import Estimate, Unavailable
from core.variational.diagnostics.generated import GeneratedLoss, generated_loss
from core.variational.diagnostics.gradients import (
    GradientNoise,
    gradient_noise,
    quadratic_gradient_variance,
)
from core.variational.diagnostics.information import Information, information
from core.variational.diagnostics.likelihood import (
    BoundOfSamples,
    ImportanceWeighted,
    bound_against_samples,
    importance_weighted,
    importance_weighted_log_likelihood,
    log_importance_weights,
)
from core.variational.diagnostics.looking import looking_at, own_random_stream, seed_for
from core.variational.diagnostics.pareto import fit_generalised_pareto, pareto_k
from core.variational.diagnostics.rate_distortion import RateDistortion, rate_distortion

__all__ = [
    "Aggregated",
    "BoundOfSamples",
    "CalibrationError",
    "CollapsePrediction",
    "Coverage",
    "Diagnosis",
    "Estimate",
    "GeneratedLoss",
    "GradientNoise",
    "Histogram",
    "Importance",
    "ImportanceWeighted",
    "Information",
    "LatentDiagnosis",
    "LatentUse",
    "RateDistortion",
    "TwoSample",
    "Unavailable",
    "active_units",
    "aggregated_posterior",
    "bound_against_samples",
    "calibration_error",
    "central_coverage",
    "collapse_prediction",
    "diagnose",
    "energy_distance",
    "energy_test",
    "fit_generalised_pareto",
    "generated_loss",
    "gradient_noise",
    "importance_weighted",
    "importance_weighted_log_likelihood",
    "information",
    "k_hat_histogram",
    "latent_use",
    "likelihood_coverage",
    "log_importance_weights",
    "looking_at",
    "own_random_stream",
    "pareto_k",
    "posterior_means",
    "predicted_collapse",
    "probability_integral",
    "quadratic_gradient_variance",
    "rate_distortion",
    "seed_for",
]
