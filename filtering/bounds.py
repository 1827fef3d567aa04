"""Bounds on a fraction that is estimated from a sample: order statistics and Clopper-Pearson. All are one-sided."""

import math


def positives_needed(miss: float, confidence: float) -> int:
    """The smallest number of positives whose lowest gate score is a threshold with the wanted bound.

    Args:
        miss: largest fraction of positives below the threshold.
        confidence: probability with which the bound holds.
    """
    needed = max(1, math.ceil(math.log(1 - confidence) / math.log1p(-miss)) - 1)
    while not threshold_rank(needed, miss, confidence):
        needed += 1
    return needed


def threshold_rank(positives: int, miss: float, confidence: float) -> int:
    """The largest rank k, from 1, such that the k-th smallest score of the positives is a threshold with the wanted bound.

    The fraction of all positives below the k-th smallest of n is at most `miss` with the probability that a binomial variable
    (n, miss) is at least k. Equal scores only lower the fraction.

    Args:
        positives: number n of positives whose scores are known.
        miss: largest fraction of positives below the threshold.
        confidence: probability with which the bound holds.

    Returns:
        The rank; 0 if n is too small.
    """
    from scipy.special import bdtr

    rank = 0
    while rank < positives and bdtr(rank, positives, miss) <= 1 - confidence:
        rank += 1
    return rank


def clopper_pearson(found: int, trials: int, confidence: float) -> tuple[float, float]:
    """Lower and upper bound of a rate, each of which holds with this confidence on its own.

    Source: Clopper and Pearson, Biometrika 26 (1934), 404-413.

    Args:
        found: number of successes.
        trials: number of trials; with none, the bounds are 0 and 1.
        confidence: probability with which each bound holds.
    """
    from scipy.special import betaincinv

    lower = float(betaincinv(found, trials - found + 1, 1 - confidence)) if found else 0.0
    upper = float(betaincinv(found + 1, trials - found, confidence)) if found < trials else 1.0
    return lower, upper


def missed_bounds(passed: int, audited: int, missed: int, found: int, confidence: float) -> tuple[float, float]:
    """Lower and upper bound of the fraction of positive sentences that a gate lets pass.

    Args:
        passed: sentences that passed the gate.
        audited: those of them, chosen at random, that the model scored all the same.
        missed: positive sentences among the audited ones.
        found: positive sentences among those that did not pass.
        confidence: probability with which each bound holds.
    """
    rates = clopper_pearson(missed, audited, confidence)
    lower, upper = (_fraction(rate * passed, found) for rate in rates)
    return lower, upper


def _fraction(missed: float, found: int) -> float:
    return missed / (missed + found) if missed else 0.0
