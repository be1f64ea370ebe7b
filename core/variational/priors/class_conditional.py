"""A Normal for every class: a prior that is a classifier too, with counterfactuals."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.priors.base import (
    Prior,
    check_latent,
    diagonal,
    learned,
    mixture,
    spread_out,
)


class ClassConditionalNormal(Prior):
    r"""A diagonal Normal for every class.

    .. math:: p(z \mid y) = \mathcal N(m_y, \operatorname{diag} s_y^2), \quad
        p(y \mid z) = \frac{\pi_y \, p(z \mid y)}{\sum_c \pi_c \, p(z \mid c)}

    Without labels it is the mixture over classes. The classifier is a Gaussian discriminant
    analysis of the latents: linear in :math:`z` if the scales are shared.

    References:
        Haselhoff et al., "The Gaussian Discriminant Variational Autoencoder (GdVAE): A
        Self-Explainable Model with Counterfactual Explanations", ECCV 2024 (arXiv:2409.12952).

    Args:
        latent: Number of latent dimensions.
        classes: How many.
        shared_scale: Whether all classes have the same :math:`s`.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    def __init__(self, latent: int, classes: int, shared_scale: bool) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"ClassConditionalNormal: classes={classes}; at least 2 are needed")
        self.latent, self.classes = latent, classes
        self.loc = learned(classes, latent, spread=1.0)
        self.log_scale = learned(1 if shared_scale else classes, latent)
        self.log_weights = learned(classes)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior of every example's class.

        Args:
            posterior: Whose shapes to take.
            context: Classes as integers, of shape ``(*batch,)`` or with the event's further
                dimensions; None for the mixture over classes.
        """
        check_latent(self, self.latent, posterior)
        if context is None:
            return mixture(self.log_weights, self._normals(), posterior)
        self._check_labels(context)
        loc, log_scale = self.loc[context], self._log_scale()[context]
        return diagonal(spread_out(loc, posterior), spread_out(log_scale, posterior), posterior)

    def log_posterior(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch classes"]:
        r"""Return :math:`\log p(y \mid z)` of every class, in nats."""
        log_joint = self._normals().log_prob(z.unsqueeze(-2)) + self.log_weights
        return log_joint.log_softmax(-1)

    def log_odds(
        self, z: Float[Tensor, "*batch latent"], target: Tensor, other: Tensor
    ) -> Float[Tensor, "*batch"]:
        r"""Return :math:`\log p(y = \text{target} \mid z) - \log p(y = \text{other} \mid z)`.

        Args:
            z: Latents.
            target: Classes as integers, of shape ``(*batch,)`` or ``()``.
            other: Classes to compare with, likewise.
        """
        slope, curvature, constant = self._quadratic(target, other)
        return constant + (slope * z).sum(-1) + (curvature * z.square()).sum(-1)

    def counterfactual(
        self,
        z: Float[Tensor, "*batch latent"],
        target: Tensor,
        other: Tensor,
        log_odds: Float[Tensor, "*batch"] | Float[Tensor, ""],
        metric: Literal["euclidean", "mahalanobis"],
    ) -> Float[Tensor, "*batch latent"]:
        r"""Move each latent until the target class has the log odds asked for.

        .. math:: z' = z + t v, \quad v = g \text{ or } \operatorname{diag}(s^2) g, \quad
            g = \nabla_z \log \frac{p(\text{target} \mid z)}{p(\text{other} \mid z)}

        with :math:`t` the nearest root of an equation that is linear with shared scales and
        quadratic otherwise. With shared scales :math:`z'` is the nearest point that does, in
        Euclidean distance or in standard deviations; with scales of each class it is the nearest
        on the line of steepest ascent.

        Args:
            z: Latents to start from.
            target: Classes as integers, of shape ``(*batch,)`` or ``()``.
            other: Classes to compare with, likewise.
            log_odds: What to reach, in nats.
            metric: In which sense the change is to be small; ``"mahalanobis"`` takes the
                target's scales.

        Returns:
            The moved latents.

        Raises:
            ValueError: If the line does not reach such log odds.
        """
        # The equation is solved in double precision: odds of 1e4 nats keep their fourth decimal.
        z_, goal = z.double(), log_odds.double()
        slope, curvature, constant = (part.double() for part in self._quadratic(target, other))
        gradient = slope + 2 * curvature * z_
        direction = gradient
        if metric == "mahalanobis":
            direction = gradient * (2 * self._log_scale()[target]).exp().double()
        now = constant + (slope * z_).sum(-1) + (curvature * z_.square()).sum(-1)
        length = direction.norm(dim=-1, keepdim=True)
        unit = direction / length.clamp(min=torch.finfo(torch.float64).tiny)
        step = _nearest_root(
            (curvature * unit.square()).sum(-1), (gradient * unit).sum(-1), now - goal
        )
        return (z_ + step.unsqueeze(-1) * unit).to(z.dtype)

    def _normals(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc, self._log_scale().exp())

    def _log_scale(self) -> Tensor:
        return self.log_scale.expand(self.classes, self.latent)

    def _quadratic(self, target: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log odds as a quadratic function of each latent dimension, and a constant."""
        loc, precision = self.loc, (-2 * self._log_scale()).exp()
        constants = self.log_weights - (0.5 * precision * loc.square() + self._log_scale()).sum(-1)
        slopes = precision * loc
        curvature = -0.5 * (precision[target] - precision[other])
        return slopes[target] - slopes[other], curvature, constants[target] - constants[other]

    def _check_labels(self, labels: Tensor) -> None:
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"ClassConditionalNormal: labels of type {labels.dtype}; classes are integers "
                f"from 0 to {self.classes - 1}"
            )
        on_cpu = labels.device.type == "cpu"  # elsewhere, looking would wait for the device
        if (
            on_cpu
            and labels.numel()
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes
        ):
            raise ValueError(
                f"ClassConditionalNormal: labels from {int(labels.min())} to {int(labels.max())}; "
                f"classes are 0 to {self.classes - 1}"
            )


def _nearest_root(quadratic: Tensor, linear: Tensor, constant: Tensor) -> Tensor:
    """Solve for the number of smallest size at which a parabola is 0.

    Raises:
        ValueError: If somewhere it never is.
    """
    discriminant = linear.square() - 4 * quadratic * constant
    if bool((discriminant < 0).any()) or bool(((linear == 0) & (constant != 0)).any()):
        raise ValueError(
            "counterfactual: along the line of steepest ascent "
            f"{int((discriminant < 0).sum())} of {discriminant.numel()} latents never reach the "
            "log odds asked for; ask for less, or share the scales of the classes"
        )
    # The smaller root, by the formula without cancellation; the slope there is not negative.
    denominator = linear + torch.copysign(discriminant.sqrt(), linear)
    return torch.where(constant == 0, 0.0, -2 * constant / denominator)
