"""Likelihoods of binary and categorical data."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Categorical, Independent

from core.variational.distributions import LogitsBernoulli
from core.variational.distributions.base import at_least_single


class BernoulliLikelihood(nn.Module):
    r"""A linear head that gives the logits of binary data.

    .. math:: \operatorname{logit} p(x_j = 1 \mid z) = (W h + b)_j

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of binary variables in an example.
        event_dims: Event dimensions of the distribution, that of the variables included.
    """

    def __init__(self, features: int, outputs: int, event_dims: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(features, outputs)
        self.event_dims = event_dims

    def forward(self, features: Tensor) -> LogitsBernoulli:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        return LogitsBernoulli(self.head(features), self.event_dims)


class CategoricalLikelihood(nn.Module):
    r"""A linear head that gives the logits of variables with several classes.

    .. math:: p(x_j = c \mid z) = \operatorname{softmax}_c (W h + b)_{jc}

    Values are class numbers from 0, of integer or floating type.

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of categorical variables in an example.
        classes: Number of classes of each.
        event_dims: Event dimensions of the distribution, that of the variables included.

    Raises:
        ValueError: If there are fewer than 2 classes.

    Example:
        >>> import torch
        >>> CategoricalLikelihood(3, outputs=4, classes=5)(torch.zeros(2, 3)).event_shape
        torch.Size([4])
    """

    def __init__(self, features: int, outputs: int, classes: int, event_dims: int = 1) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(
                f"CategoricalLikelihood: classes={classes}; there must be at least 2 to tell apart"
            )
        self.head = nn.Linear(features, outputs * classes)
        self.outputs, self.classes, self.event_dims = outputs, classes, event_dims

    def forward(self, features: Tensor) -> Independent:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        logits = at_least_single(self.head(features)).unflatten(-1, (self.outputs, self.classes))
        elements = Categorical(logits=logits, validate_args=False)
        return Independent(elements, self.event_dims, validate_args=False)
