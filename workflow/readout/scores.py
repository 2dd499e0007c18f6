"""What a network's scores say of the right class: its rank and its log-probability."""

import torch

from readout import StudyError


def ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Number of classes with a strictly higher score than the right one, int64 [N]; 0 is top-1 correct.

    `scores` [N, outputs] are logits, `labels` [N] the indices of the right classes.
    """
    if not torch.isfinite(scores).all():
        raise StudyError("a score is not finite; the network or its weights are broken")
    return (scores > scores.gather(1, labels[:, None])).sum(1)


def log_probabilities(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of the right class under the softmax, in nats, float64 [N]."""
    return scores.double().log_softmax(1).gather(1, labels[:, None]).squeeze(1)
