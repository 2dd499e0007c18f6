"""Folds: which images stand for what."""

import os
import sys

import numpy as np
import pytest

from readout import folds
from workflow import ROOT, ran

CLASSES = np.repeat(["a", "b", "c", "d"], 10)
FOLD = np.tile(np.arange(5), 8)


@pytest.mark.parametrize("others, images", [(1, 2), (6, 2), (7, 1), (50, 1)])
def test_few_others_give_two_images_a_fold(others, images):
    assert folds.others_per_fold(others) == images


def test_the_first_images_of_a_class_in_a_fold_are_its_sample():
    class_id, fold = np.array(list("aabbab")), np.array([0, 0, 0, 1, 1, 0])
    assert folds.sample(class_id, fold, 1).tolist() == [True, False, True, True, True, False]
    assert folds.sample(class_id, fold, 2).all()


def test_a_pseudo_target_takes_equally_from_folds_and_classes():
    for count in (5, 10, 20):
        chosen = folds.pseudo_target(CLASSES, FOLD, count, "some")
        assert chosen.sum() == count
        assert np.bincount(FOLD[chosen], minlength=5).tolist() == [count // 5] * 5
        for f in range(5):
            of_class = [(CLASSES[chosen & (f == FOLD)] == c).sum() for c in "abcd"]
            assert max(of_class) - min(of_class) <= 1


def test_a_folds_classes_say_nothing_of_the_other_folds():
    """Of fifty classes a fold has ten: a class that is drawn there must not be missing elsewhere, which a probe would read."""
    class_id, fold = np.repeat(np.arange(50), 50), np.tile(np.arange(5), 500)
    draws = [folds.pseudo_target(class_id, fold, 50, str(i)) for i in range(100)]
    drawn = np.array([[np.isin(np.arange(50), class_id[d & (fold == f)]) for f in range(5)] for d in draws], float)
    assert (drawn.sum(-1) == 10).all()
    among = [np.corrcoef(drawn[:, f].ravel(), drawn[:, g].ravel())[0, 1] for f in range(5) for g in range(f)]
    # Turns that go on from fold to fold give -0.25.
    assert abs(np.mean(among)) < 0.02


def test_pseudo_targets_differ():
    draws = {tuple(np.flatnonzero(folds.pseudo_target(CLASSES, FOLD, 10, str(i)))) for i in range(20)}
    assert len(draws) > 15


def test_a_share_without_images_is_another_classs():
    """Class b has no image in fold 0: the other class gives both of that fold."""
    class_id, fold = np.array(list("aaaabbbb")), np.array([0, 0, 1, 1, 1, 2, 3, 4])
    chosen = folds.pseudo_target(class_id, fold, 10, "some")
    assert chosen[:2].all()


def test_the_draw_is_the_same_in_every_process():
    """The order of a set of strings is not."""
    code = (
        "import numpy as np; from readout import folds\n"
        "drawn = folds.pseudo_target(np.repeat(['a', 'b', 'c', 'd'], 10), np.tile(np.arange(5), 8), 10, 'some')\n"
        "print(np.flatnonzero(drawn).tolist())"
    )
    own = np.flatnonzero(folds.pseudo_target(CLASSES, FOLD, 10, "some")).tolist()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "PYTHONHASHSEED": seed}
        printed = ran([sys.executable, "-c", code], env=environment, check=True).stdout
        assert printed.strip() == str(own)
