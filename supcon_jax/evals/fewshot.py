"""Few labels: a ridge classifier in closed form on a handful of pictures of each class, over several draws."""

import numpy as np

from supcon_jax.evals.knn import labelled_rows
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import unit


def ridge(x, label, *, classes, penalty=1.0):
    """Least squares from centred unit rows to one-hot labels.

        W = X^T (X X^T + penalty I)^-1 (Y - mean Y),   b = mean Y - mean(x) W

    the dual form of (X^T X + penalty I)^-1 X^T Y, which costs no more than the rows are many.

    x: f64[n, f]; label: i[n]. Returns (w f64[f, c], b f64[c]).
    """
    target = np.eye(classes)[label]
    mean, level = x.mean(0), target.mean(0)
    x = x - mean
    if len(x) <= x.shape[1]:
        w = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), target - level)
    else:
        w = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - level))
    return w, level - mean @ w


def draw(label, shots, rng):
    """Rows of `shots` pictures of each class, without replacement, i[classes * shots]."""
    return np.concatenate([rng.choice(np.flatnonzero(label == c), shots, replace=False) for c in np.unique(label)])


def fewshot(
    x, label, query, truth, *, classes, shots=(1, 5, 10), draws=5, penalty=1.0, seed=0,
    protocol=Protocol(), name="fewshot",  # noqa: B008  (frozen)
):  # fmt: skip
    """Accuracy with few labels: mean and spread over draws of the labelled pictures.

    x, label: f[n, f], i[n] of the training split, out of which `shots` of each class are drawn; query, truth: of the test
    split. Rows without a label (-1) are left out. draws: at least 3, for the spread. penalty: of `ridge` on unit rows.
    Returns {metric: {"value", "protocol", "line"}}: NAME_1, NAME_1_std, NAME_5, ... in percent, the standard deviation over
    n - 1; shots that some class has not enough rows for are left out.
    Raises ValueError: features that are not finite, less than three draws, several labels.
    """
    if draws < 3:
        raise ValueError(f"draws: {draws}; a spread needs at least 3")
    if np.ndim(label) != 1:
        raise ValueError("label: few-shot classification reads one label of each row, not several")
    (x, label), (query, truth) = labelled_rows(x, label, "train"), labelled_rows(query, truth, "test")
    x, query, fewest = unit(x), unit(query), np.unique(label, return_counts=True)[1].min()
    out = {}
    for count in shots:
        if count > fewest:
            continue
        rng, found = np.random.default_rng((seed, count)), []
        for _ in range(draws):
            chosen = draw(label, count, rng)
            w, b = ridge(x[chosen], label[chosen], classes=classes, penalty=penalty)
            found.append(100 * np.mean((query @ w + b).argmax(1) == truth))
        said = f"ridge {penalty:g} on centred unit rows, {count} of each class, {draws} draws"
        own = protocol.replace(real_number=len(query), train_number=len(chosen), settings=said, seed=seed)
        out |= record({f"{name}_{count}": np.mean(found), f"{name}_{count}_std": np.std(found, ddof=1)}, own)
    return out
