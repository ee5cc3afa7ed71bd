"""Spacings that are not the zeros', for a model to fail on: each null keeps something of the zeros and nothing else.

| null | keeps | so that a model can gain over it |
|---|---|---|
| GUE | the statistics of random matrices | no primes: the entropy rate of the sine process, 0.4227 nats |
| Wigner | the marginal law of the GUE, nearly | nothing: 0.5288 nats |
| shuffled | the zeros' own marginal law | nothing beyond that law |
| phase-randomised | that law, and the spectrum stretch by stretch | nothing beyond a linear predictor |
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

MATRIX = 2_000
"""Rows of a simulated matrix."""
BULK = 1_400
"""Spacings taken from the middle of its spectrum."""
STRETCH = 16_384
"""Spacings whose phases are drawn together: few enough that a prime's tone, whose frequency in cycles per spacing
falls with the height, stays one line of the spectrum."""
ROUNDS = 24
"""Of matching the spectrum and the marginal law in turn."""


def gue_spacings(count: int, seed: int) -> np.ndarray:
    """Spacings in the bulk of GUE matrices, of mean 1: [count] float64.

    Eigenvalues of the tridiagonal model with diagonal N(0, 1) and off-diagonal χ_{2i}/√2, i = n − 1, ..., 1
    (Dumitriu and Edelman 2002, "Matrix models for beta ensembles", β = 2), unfolded by the semicircle of radius 2√n,

        n (1/2 + (x √(1 − x²) + arcsin x)/π),    x = λ/(2√n).

    A matrix gives `BULK` spacings in a row, and the next one follows as if it went on: of `BULK` spacings one is
    independent of its past, which is worth less than 0.0005 nats to a predictor of the rest.
    """
    generator = np.random.default_rng(seed)
    degrees = 2.0 * np.arange(MATRIX - 1, 0, -1)
    first = (MATRIX - BULK) // 2
    stretches = []
    for _ in range(-(-count // BULK)):
        diagonal = generator.standard_normal(MATRIX)
        beside = np.sqrt(generator.chisquare(degrees) / 2)
        x = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf") / (2 * np.sqrt(MATRIX))
        x = x[first : first + BULK + 1]
        stretches.append(np.diff(MATRIX * (x * np.sqrt(1 - x * x) + np.arcsin(x)) / np.pi))
    return np.concatenate(stretches)[:count]


def wigner_spacings(count: int, seed: int) -> np.ndarray:
    """Independent draws from (32/π²) s² exp(−4s²/π), Wigner's surmise for the GUE: [count] float64.

    That is the length of a normal vector in three dimensions with standard deviation √(π/8).
    """
    return np.sqrt(np.random.default_rng(seed).chisquare(3, count) * (np.pi / 8))


def shuffled(spacings: np.ndarray, seed: int) -> np.ndarray:
    """The same spacings [n] in a random order."""
    return np.random.default_rng(seed).permutation(spacings)


def phase_randomised(spacings: np.ndarray, seed: int) -> np.ndarray:
    """Spacings [n] with the same values and, nearly, the same spectrum in each stretch, but random phases.

    Iterated amplitude adjustment (Schreiber and Schmitz 1996, "Improved surrogate data for nonlinearity tests"): give
    the series the wanted moduli of its Fourier transform, then the wanted values by rank, and again. It ends with the
    values, so they are exactly the stretch's own.
    """
    generator = np.random.default_rng(seed)
    stretches = np.array_split(np.asarray(spacings, dtype=np.float64), max(1, round(len(spacings) / STRETCH)))
    return np.concatenate([_surrogate(stretch, generator) for stretch in stretches])


def _surrogate(stretch: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    values, moduli = np.sort(stretch), np.abs(np.fft.rfft(stretch))
    found = generator.permutation(stretch)
    for _ in range(ROUNDS):
        turned = np.fft.rfft(found)
        turned *= moduli / np.maximum(np.abs(turned), 1e-300)
        wanted = np.fft.irfft(turned, len(stretch))
        found = np.empty_like(values)
        found[np.argsort(wanted)] = values
    return found
