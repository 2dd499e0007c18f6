"""What a network's scores say: rank and log-probability of the right class, and the log-odds of every class."""

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


def log_odds(scores: torch.Tensor) -> torch.Tensor:
    """z of each class, its score less the logsumexp of all the others', in nats, float64 [N, outputs].

    The log-odds of the class under the softmax: log p - log(1 - p).
    """
    log_p = scores.double().log_softmax(1)
    rest = torch.log1p(-log_p.exp())
    # Of the likeliest class p may be one but for a rounding: there the others' probabilities are summed.
    top = log_p.argmax(1, keepdim=True)
    rest.scatter_(1, top, log_p.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True))
    return log_p - rest
