"""How good predicted scores are: the measures of the sentiment benchmarks, exactly as MMSA defines them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Measures over `n` samples; None where a measure is undefined, never a silent 0.

    `acc2` and `f1` compare score >= 0 ("has0"); `acc2_non0` and `f1_non0` drop true zeros and compare score > 0.
    Weighted F1 weighs a class by its support in the truth, `f1_macro` weighs classes equally. `acc7` and `acc5`
    clip to [-3, 3] and [-2, 2] and round half to even.
    """

    n: int
    acc2: float
    f1: float
    f1_macro: float
    acc2_non0: float | None
    f1_non0: float | None
    acc7: float
    f1_7: float
    acc5: float
    mae: float
    corr: float | None

    def as_dict(self) -> dict[str, float | None]:
        """The measures by name, ready for JSON."""
        return asdict(self)


def metrics(prediction: Scores, truth: Scores) -> Metrics:
    """Measure predicted scores against true ones, both (N,) or (N, 1).

    Raises ValueError where nothing is to be measured, the sizes differ, or a number is not finite.
    """
    p, t = (np.asarray(x, np.float64).reshape(-1) for x in (prediction, truth))
    if p.shape != t.shape:
        raise ValueError(f"{p.size} predictions for {t.size} truths")
    if not p.size:
        raise ValueError("no samples to measure")
    if not (np.isfinite(p).all() and np.isfinite(t).all()):
        raise ValueError("predictions and truths must be finite numbers")
    has0 = _binary(t >= 0), _binary(p >= 0)
    rated = t != 0
    non0 = _binary(t[rated] > 0), _binary(p[rated] > 0)
    seven = _rounded(t, 3), _rounded(p, 3)
    return Metrics(
        n=p.size,
        acc2=_accuracy(*has0),
        f1=_f1(*has0),
        f1_macro=_f1(*has0, weighted=False),
        acc2_non0=_accuracy(*non0) if rated.any() else None,
        f1_non0=_f1(*non0) if rated.any() else None,
        acc7=_accuracy(*seven),
        f1_7=_f1(*seven),
        acc5=_accuracy(_rounded(t, 2), _rounded(p, 2)),
        mae=float(np.abs(p - t).mean()),
        corr=_correlation(p, t),
    )


def _binary(positive: npt.NDArray[np.bool_]) -> Classes:
    return positive.astype(np.int64)


def _rounded(scores: Scores, limit: int) -> Classes:
    return np.round(np.clip(scores, -limit, limit)).astype(np.int64)


def _accuracy(truth: Classes, prediction: Classes) -> float:
    return float((truth == prediction).mean())


def _f1(truth: Classes, prediction: Classes, *, weighted: bool = True) -> float:
    """F1 over the classes of truth and prediction; a class that is never hit counts 0."""
    total, weights = 0.0, 0.0
    for label in np.union1d(truth, prediction):
        is_true, is_said = truth == label, prediction == label
        weight = float(is_true.mean()) if weighted else 1.0
        total += weight * 2.0 * float((is_true & is_said).sum()) / float(is_true.sum() + is_said.sum())
        weights += weight
    return total / weights


def _correlation(p: Scores, t: Scores) -> float | None:
    """Pearson's, or None where either side is constant."""
    if np.ptp(p) == 0.0 or np.ptp(t) == 0.0:
        return None
    return float(np.corrcoef(p, t)[0, 1])
