"""Scores: rank and log-probability of the right class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from readout import StudyError, scores


def test_ranks_by_hand():
    """Classes strictly above the right one; equal scores do not count."""
    logits = torch.tensor([[3.0, 1, 2], [3, 1, 2], [3, 1, 2], [5, 5, 5], [1, 2, 2]])
    assert scores.ranks(logits, torch.tensor([0, 1, 2, 2, 1])).tolist() == [0, 2, 1, 0, 0]


def test_log_probabilities_by_hand():
    """log softmax of (0, ln 3) is (ln 1/4, ln 3/4)."""
    found = scores.log_probabilities(torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([0, 1]))
    assert found.dtype == torch.float64
    # The score ln 3 is a float32.
    torch.testing.assert_close(found, torch.tensor([0.25, 0.75]).double().log(), rtol=1e-7, atol=0)


def test_log_probabilities_stay_finite():
    """A class 1000 nats below has no probability in floating point, but a log-probability."""
    assert scores.log_probabilities(torch.tensor([[1000.0, 0]]), torch.tensor([1])).item() == pytest.approx(-1000)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_an_error(broken):
    """NaN compares as false, and would pass for rank 0."""
    with pytest.raises(StudyError, match="not finite"):
        scores.ranks(torch.tensor([[1.0, 2.0], [broken, 0.0]]), torch.tensor([0, 1]))


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 8)), elements=st.integers(-3, 3)))
def test_ranks_are_counts(logits):
    """Against a loop, with many ties; without ties the ranks of all classes are 0 to n - 1."""
    for label in range(logits.shape[1]):
        found = scores.ranks(torch.from_numpy(logits), torch.full((len(logits),), label))
        assert found.tolist() == [sum(other > row[label] for other in row) for row in logits]
