#!/usr/bin/env python3
"""Writes statistics.json: what engine/metrics/statistics.cpp must come to, by scipy or by counting every case.

    python3 -m venv build/golden && build/golden/bin/pip install -r tests/golden/statistics_requirements.txt
    build/golden/bin/python tests/golden/statistics.py
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from scipy import stats

FILE = Path(__file__).with_name("statistics.json")


def studentized_range() -> list[dict]:
    """Quantiles with infinitely many degrees of freedom. scipy integrates them to about 1e-8."""
    cases = [(k, alpha) for k in range(2, 21) for alpha in (0.05, 0.1)] + [(3, 0.01), (50, 0.05)]
    return [{"groups": k, "probability": 1 - alpha, "q": float(stats.studentized_range.ppf(1 - alpha, k, np.inf))}
            for k, alpha in cases]


def chi_square() -> list[dict]:
    return [{"x": x, "degrees": d, "p": float(stats.chi2.sf(x, d))}
            for d in (1, 2, 3, 4, 7, 12, 19) for x in (0.02, 0.9, 3.84, 14.2, 60.0)]


def friedman(rng: np.random.Generator) -> list[dict]:
    """Rows are blocks, columns methods; whole numbers, so that there are ties."""
    cases = []
    for blocks, methods, most in ((2, 3, 50), (6, 3, 4), (5, 4, 1000), (12, 9, 6), (30, 20, 40)):
        scores = rng.integers(0, most, (blocks, methods)).astype(float)
        ranks = np.apply_along_axis(stats.rankdata, 1, -scores)
        test = stats.friedmanchisquare(*scores.T)
        q = stats.studentized_range.ppf(0.95, methods, np.inf) / np.sqrt(2)
        cases.append({"scores": scores.tolist(), "mean_ranks": ranks.mean(0).tolist(),
                      "chi_square": float(test.statistic), "p": float(test.pvalue),
                      "critical_difference": float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))})
    return cases


def signed_ranks_by_counting(d: np.ndarray) -> tuple[float, float]:
    """W and its two-sided p over all patterns of signs: with ties, where scipy has no exact test."""
    d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))
    positive = ranks[d > 0].sum()
    w = min(positive, ranks.sum() - positive)
    sums = [sum(r for r, sign in zip(ranks, signs) if sign) for signs in itertools.product((0, 1), repeat=len(d))]
    return float(w), min(1.0, 2 * sum(s <= w for s in sums) / len(sums))


def wilcoxon(rng: np.random.Generator) -> list[dict]:
    cases = []
    for n, shift in ((1, 1.0), (5, 2.0), (8, 0.3), (25, 0.4), (50, 0.2)):
        d = rng.normal(shift, 1.0, n).round(6)
        test = stats.wilcoxon(d, method="exact")
        cases.append({"d": d.tolist(), "w": float(test.statistic), "p": float(test.pvalue), "exact": True})
    for n in (6, 10, 12):
        d = rng.integers(-2, 4, n).astype(float)
        w, p = signed_ranks_by_counting(d)
        cases.append({"d": d.tolist(), "w": w, "p": p, "exact": True})
    d = rng.integers(-8, 12, 90).astype(float)
    test = stats.wilcoxon(d, method="approx", correction=False, zero_method="wilcox")
    cases.append({"d": d.tolist(), "w": float(test.statistic), "p": float(test.pvalue), "exact": False})
    return cases


def all_resamples(n: int) -> list[np.ndarray]:
    return [np.array(draw) for draw in itertools.product(range(n), repeat=n)]


def bootstrap(rng: np.random.Generator) -> list[dict]:
    """Percentiles of the bootstrap distribution itself, every resample counted once: tasks of 3 and 4 rows, 3 seeds."""
    tasks = [rng.normal(1.0, 3.0, (3, rows)).round(3) for rows in (3, 4)]
    cases = []
    for what in ("rows", "seeds", "rows_and_seeds"):
        seeds = all_resamples(3) if what != "rows" else [np.arange(3)]
        values = []
        for s in seeds:
            means = []
            for task in tasks:
                rows = all_resamples(task.shape[1]) if what != "seeds" else [np.arange(task.shape[1])]
                means.append(np.array([task[np.ix_(s, r)].mean() for r in rows]))
            values.append(np.add.outer(means[0], means[1]).ravel() / 2)
        values = np.concatenate(values)
        cases.append({"what": what, "differences": [t.tolist() for t in tasks],
                      "mean": float(np.mean([t.mean() for t in tasks])), "spread": float(values.std()),
                      "low": float(np.quantile(values, 0.05)), "high": float(np.quantile(values, 0.95))})
    return cases


def main() -> None:
    rng = np.random.default_rng(20250101)
    golden = {"studentized_range": studentized_range(), "chi_square": chi_square(), "friedman": friedman(rng),
              "wilcoxon": wilcoxon(rng), "bootstrap": bootstrap(rng)}
    FILE.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
