"""The tones of zeros: frequencies at which the heights of zeros beat together, found in the zeros and nowhere else.

By Landau's formula (1911) Σ exp(−i t γ) over zeros γ up to T grows like (T/2π) Λ(n)/√n at t = ln n, and stays small
between: the strongest frequencies of the zeros are logarithms of primes and of their powers. Nobody tells the model so.

Letters: n zeros, J tones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ourospec.data.spacings import Series

STEP = 0.1
"""Heights are counted on a grid of this step: frequencies up to 31 would be told apart on it."""
LOWEST = 0.3
"""Frequencies below this are not looked for: what is there is the slow change of density."""
APART = 1e-3
"""Tones nearer to each other than this are one."""


def strongest_tones(series: Sequence[Series], count: int, highest: float) -> np.ndarray:
    """The strongest frequencies of the heights, in radians per unit of height.

    The spectrum of the counted heights less their smooth density, under a Hann window over all of them; peaks in order
    of size, none within APART of a larger one, each refined by a parabola through three logarithms. Over a stretch of
    length T a frequency is found to about 0.1 · 2π/T.

    Args:
        count: J at most; fewer where the spectrum has fewer peaks.
        highest: no frequency above this.

    Returns:
        [J] float64, rising.
    """
    size, resolution = spectrum(series)
    size = size[: int(highest / resolution) + 2]
    inner = size[1:-1]
    peaks = np.flatnonzero((inner > size[:-2]) & (inner >= size[2:])) + 1
    peaks = peaks[peaks * resolution > LOWEST]
    chosen: list[int] = []
    for peak in peaks[np.argsort(-size[peaks], kind="stable")]:
        if all(abs(peak - other) * resolution > APART for other in chosen):
            chosen.append(int(peak))
            if len(chosen) == count:
                break
    at = np.array(chosen, dtype=np.int64)
    below, here, above = (np.log(np.maximum(size[at + step], 1e-300)) for step in (-1, 0, 1))
    bend = below - 2 * here + above
    shift = np.where(bend < 0, 0.5 * (below - above) / np.where(bend < 0, bend, -1.0), 0.0)
    return np.sort((at + np.clip(shift, -0.5, 0.5)) * resolution)


def spectrum(series: Sequence[Series]) -> tuple[np.ndarray, float]:
    """|Σ w(γ) exp(−i f γ)| less that of the smooth density, at multiples of a step in frequency, and the step.

    Between the stretches there is nothing, neither zeros nor density.
    """
    first, last = float(series[0].heights[0]), float(series[-1].heights[-1])
    cells = int((last - first) / STEP) + 2
    length = 1 << (cells - 1).bit_length()
    counted = np.zeros(length)
    for stretch in series:
        place = (stretch.heights - first) / STEP
        cell = place.astype(np.int64)
        share = place - cell
        low, high = int(cell[0]), int(cell[-1]) + 2
        counted[low:high] += np.bincount(cell - low, 1 - share, high - low)
        counted[low:high] += np.bincount(cell - low + 1, share, high - low)
        middle = first + STEP * np.arange(low, high)
        density = np.log(np.maximum(middle, 2 * np.pi) / (2 * np.pi)) / (2 * np.pi)
        counted[low:high] -= STEP * density
    counted[:cells] *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(cells) / cells)
    return np.abs(np.fft.rfft(counted)), 2 * np.pi / (length * STEP)
