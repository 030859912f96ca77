"""A linear classifier fitted on vectors: multinomial logistic regression with an L2 penalty."""

import numpy as np
from jaxtyping import Float, Int

_MOST_STEPS, _GRADIENT = 10_000, 1e-8


def fit_linear(
    vectors: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], num_classes: int
) -> tuple[Float[np.ndarray, "d c"], Float[np.ndarray, " c"]]:
    """The minimum of the cross-entropy with a penalty, by L-BFGS from 0.

    `sum_i -log softmax(x_i W + b)[y_i] + |W|^2 / 2`. Of two classes the penalty is twice that, so
    that it is the squared norm of the difference of the columns, which is what counts, over 2: the
    classifier is that of scikit-learn's LogisticRegression with C = 1 either way. It does not
    depend on `b`.

    Args:
      vectors: x, of n texts.
      labels: y, from 0 to c - 1.
      num_classes: c.

    Returns:
      (W, b), float32.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    x, size = np.asarray(vectors, np.float64), vectors.shape[1]
    rows, penalty = np.arange(len(labels)), 2.0 if num_classes == 2 else 1.0

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table = flat.reshape(size + 1, num_classes)  # [d+1 c]: W, and b below it
        kernel = table[:-1]
        logits = x @ kernel + table[-1]
        log_p = logits - logsumexp(logits, axis=1, keepdims=True)
        wrong = np.exp(log_p)
        wrong[rows, labels] -= 1.0  # of the loss by the logits
        gradient = np.concatenate([x.T @ wrong + penalty * kernel, wrong.sum(0, keepdims=True)])
        loss = -log_p[rows, labels].sum() + penalty / 2 * (kernel**2).sum()
        return float(loss), gradient.reshape(-1)

    start = np.zeros((size + 1) * num_classes)
    options = {"maxiter": _MOST_STEPS, "gtol": _GRADIENT, "ftol": 0.0}
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
    table = found.x.reshape(size + 1, num_classes).astype(np.float32)
    return table[:-1], table[-1]
