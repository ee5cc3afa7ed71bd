"""The best that can be said of the next spacing of the sine process, given k past ones: what "GUE-optimal" means.

The sine process is what eigenvalues of large GUE matrices tend to, and what zeros of the zeta function are conjectured
to tend to. It is determinantal with kernel K(x, y) = sin π(x − y)/π(x − y). Let x_0 < ... < x_k be the last points and
the next spacing s. The joint density of k + 2 consecutive points is a Janossy density (Daley and Vere-Jones, An
Introduction to the Theory of Point Processes, section 5.4), and p(s | past) a ratio of two of them. That ratio needs no
two determinants: conditioned on its points in [x_0, x_k], and on having no others there, the process beyond x_k is
determinantal again, with kernel K″, made in two steps:

    K′ = K − K_{·x} K_xx⁻¹ K_{x·}                      there are points at x (Shirai and Takahashi 2003)
    K″ = K′ + K′_{·q} (I − K′_qq)⁻¹ K′_{q·}            and no others in [x_0, x_k]
    P(next spacing > s) = det(I − K″ on [x_k, x_k + s])
    p(s) = that determinant · R(s, s),  R = K″ (I − K″)⁻¹

Integral operators become matrices on Gauss-Legendre nodes q with weights w, √w on both sides (Bornemann 2010, "On the
numerical evaluation of Fredholm determinants"). The gap's nodes lie panel by panel, so that one Cholesky factor gives
the determinant, and with it the density, at the end of every panel.

Letters: B rows of a batch, k past spacings, P = k + 1 points, m nodes of the past, g nodes of the gap, J panels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ourospec.data.spacings.targets import Targets
from ourospec.measure.density import Tabulated

PANELS = np.array([0.02, 0.1, 0.2, 0.35, *np.linspace(0.5, 4.4, 14)])
"""Ends of the panels: where the density is worked out."""
NODES = 4
"""Of a panel."""
GRID = np.linspace(0, 6, 241)
"""Where it is then read off by a spline; its logarithm is right to 4e-5."""
NODES_PER_SPACING, MORE_NODES = 1.6, 14
"""Of the past: as many as a wave of the process's highest frequency needs, and some more; errors are below 1e-10."""
NEAREST = 3
"""Points whose repulsion (s + d)² is divided out before the logarithm of the density is interpolated."""
AT_ONCE = 1e6
"""Numbers of the largest array of a batch: more would leave the processor's cache, which takes twice as long."""
LEAST = 1e-13
"""Eigenvalue that is left where rounding has made one smaller or negative."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class SineKernel:
    """Predicts from the last `lags` spacings as if the series were the sine process. Nothing is fitted."""

    lags: int
    """k; 0 is the exact law of a GUE spacing."""
    tell: Tell | None = None
    """Hears how far it has come."""

    @property
    def name(self) -> str:
        return f"sine kernel, {self.lags} past" if self.lags else "exact GUE law"

    def predict(self, targets: Targets) -> Tabulated:
        """One density for each target; without lags one for all.

        Raises:
            ValueError: the targets have fewer past spacings than lags.
        """
        if self.lags > targets.past.shape[1]:
            raise ValueError(f"{targets.past.shape[1]} past spacings, and {self.lags} are needed")
        past = targets.past[:, targets.past.shape[1] - self.lags :] if self.lags else np.zeros((1, 0))
        return Tabulated(GRID, self._densities(past))

    def _densities(self, past: np.ndarray) -> np.ndarray:
        """[B, k] -> [B, G], in batches that fit into memory."""
        size = _size(past)
        rows = max(1, int(AT_ONCE / size**2))
        # Rows of one length share their nodes, so that short pasts do not pay for long ones.
        order = np.argsort(past.sum(1), kind="stable")
        found = np.empty((len(past), len(GRID)))
        for start in range(0, len(past), rows):
            here = order[start : start + rows]
            found[here] = _interpolated(past[here], at_panels(torch.from_numpy(past[here]))[1].numpy())
            if self.tell is not None:
                self.tell(f"{self.name}: {min(start + rows, len(past)):,} of {len(past):,} targets")
        return found


def _size(past: np.ndarray) -> int:
    """Rows of the largest matrix for these pasts."""
    nodes = _past_nodes(float(past.sum(1).max())) if past.shape[1] else 0
    return past.shape[1] + 1 + nodes + (NODES + 1) * len(PANELS)


def _past_nodes(length: float) -> int:
    return int(np.ceil(NODES_PER_SPACING * length)) + MORE_NODES


def at_panels(past: Tensor) -> tuple[Tensor, Tensor]:
    """The conditional law of the next spacing at the ends of the panels.

    Args:
        past: [B, k] float64 spacings, the last one next to the gap.

    Returns:
        P(s > PANELS) and p(PANELS), [B, J] each.
    """
    rows, lags = past.shape
    zero = past.new_zeros(rows, 1)
    points = torch.cat([zero, past.cumsum(1)], 1)
    length = points[:, -1:]
    points = points - length
    nodes, weights = _gap_nodes()
    behind, behind_weights = past.new_zeros(rows, 0), past.new_zeros(rows, 0)
    if lags:
        x, w = map(torch.from_numpy, np.polynomial.legendre.leggauss(_past_nodes(float(length.max()))))
        behind, behind_weights = length * (x - 1) / 2, length * w / 2
    m, g = behind.shape[1], len(nodes)
    ends = torch.from_numpy(PANELS)
    places = torch.cat([behind, nodes.expand(rows, -1), ends.expand(rows, -1)], 1)
    roots = torch.cat(
        [behind_weights.sqrt(), weights.sqrt().expand(rows, -1), torch.ones_like(ends).expand(rows, -1)], 1
    )
    kernel = _there_are_points(points, places) * roots[:, :, None] * roots[:, None, :]
    if lags:
        kernel = _there_are_none(kernel, m)
    factor = _cholesky(_complement(kernel, g))
    solved = _forward(factor, kernel[:, :g, g:])
    last = slice(NODES - 1, None, NODES)
    survival = (2 * factor.diagonal(dim1=1, dim2=2).log()).cumsum(1)[:, last].exp()
    resolvent = kernel[:, g:, g:].diagonal(dim1=1, dim2=2) + solved.square().cumsum(1)[:, last].diagonal(
        dim1=1, dim2=2
    )
    return survival, (survival * resolvent).clamp_min(torch.finfo(torch.float64).tiny)


def _there_are_points(points: Tensor, places: Tensor) -> Tensor:
    """K′ [B, n, n] at `places` [B, n], given `points` [B, P]."""
    solved = _forward(_cholesky(_sine(points, points)), _sine(points, places))
    return _sine(places, places) - solved.mT @ solved


def _there_are_none(kernel: Tensor, nodes: int) -> Tensor:
    """K″ at the other places, given that there is no point where the first `nodes` lie."""
    factor = _cholesky(_complement(kernel, nodes))
    solved = _forward(factor, kernel[:, :nodes, nodes:])
    return kernel[:, nodes:, nodes:] + solved.mT @ solved


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor, of a matrix [B, n, n] that is positive definite but for rounding.

    A past that the sine process has with a probability under 1e-13 or so (a gap of 6, points nearly at one place) has
    an eigenvalue that drowns in rounding. It is raised to `LEAST`, and the density is that of a past not as odd.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    odd = failed > 0
    if odd.any():
        values, vectors = torch.linalg.eigh(matrix[odd])
        roots = values.clamp_min(LEAST).sqrt()[:, :, None] * vectors.mT
        upper = torch.linalg.qr(roots, mode="r").R
        signs = upper.diagonal(dim1=1, dim2=2).sign()
        factor[odd] = upper.mT * signs[:, None, :]
    return factor


def _complement(kernel: Tensor, nodes: int) -> Tensor:
    """I − K at the first nodes."""
    return torch.eye(nodes, dtype=kernel.dtype) - kernel[:, :nodes, :nodes]


def _forward(factor: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, right, upper=False)


def _sine(a: Tensor, b: Tensor) -> Tensor:
    return torch.sinc(a[:, :, None] - b[:, None, :])


def _gap_nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights [g], panel by panel."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    starts = np.concatenate([[0.0], PANELS[:-1]])[:, None]
    widths = PANELS[:, None] - starts
    return torch.from_numpy((starts + widths * (x + 1) / 2).ravel()), torch.from_numpy(
        (widths * w / 2).ravel()
    )


def _interpolated(past: np.ndarray, density: np.ndarray) -> np.ndarray:
    """[B, J] at PANELS -> [B, G] on GRID.

    p(s) is (s + d)² for every past point at distance d, times something smooth. What is left of ln p once the nearest
    are taken out is interpolated; beyond the last panel, where less than 1e-9 lies for a past that is not odd, it goes
    on with the slope it has, which is too much, since ln p is concave there.
    """
    away = np.concatenate([np.zeros((len(past), 1)), np.cumsum(past[:, ::-1], axis=1)], axis=1)[:, :NEAREST]

    def repulsion(s: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return 2 * np.log(s[None, :, None] + away[:, None, :]).sum(2)

    spline = CubicSpline(PANELS, np.log(density) - repulsion(PANELS), axis=1)
    end, inside = PANELS[-1], PANELS[-1] >= GRID
    beyond = spline(end)[:, None] + spline(end, 1)[:, None] * (GRID[~inside] - end)
    return np.exp(np.concatenate([spline(GRID[inside]), beyond], axis=1) + repulsion(GRID))
