"""Hardy's Z on a block of evenly spaced heights, and the zeros in it, in machine code.

    Z(t) = 2 Re[ e^{iθ(t)} Σ_{n≤m} n^{-1/2} e^{-it ln n} ] + (−1)^{m−1} a^{-1/2} Σ_{k≤4} C_k(a − m) a^{-k},
    a = √(t/2π), m = ⌊a⌋                                      (Riemann-Siegel; Edwards, sections 7.2 to 7.4)

and below `LOW_BLOCKS`, where that remainder is too coarse, Z(t) = Re[e^{iθ(t)} ζ(½ + it)] by Euler and Maclaurin
(Edwards, section 6.4).

How a block is done. Every n has one phase, t ln n at the block's centre, reduced modulo 2π with 106 bits; from there
the grid is reached by turning, SPAN points at a time. Z has no frequency above θ'(t), so between the points of a grid
ten times as fine as the zeros an interpolating polynomial of degree 15 is good to about 1e-12, and no sum is formed
again: the zeros are those of the polynomial. Where Z is so flat that 1e-12 matters, a zero gets a grid of its own.

Numba looks at this file alone to see whether what it has kept is still good: everything that it compiles stands here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

HALF = 8
"""Nodes of an interpolating polynomial to each side."""
NODES = 2 * HALF
SPAN = 9
"""Grid points that share one turn: a middle one and four pairs around it."""
WEIGHTS = np.array([(-1.0) ** k * math.comb(NODES - 1, k) for k in range(NODES)])
"""Barycentric weights of evenly spaced nodes (Berrut and Trefethen 2004, equation 5.1)."""
INVERSE_TWO_PI = 0.15915494309189535
INVERSE_TWO_PI_LOW = -9.839338337591243e-18
TWO_PI = 2 * math.pi
TWO_PI_LOW = 2.4492935982947064e-16
GRAINS = 4096
"""Fineness of the numbers whose logarithms are known exactly, a power of 2."""
SPLITTER = 134217729.0
"""2²⁷ + 1."""
STEEP = 1.0
"""Slope of Z above which an error of 1e-12 in Z moves a zero by too little to matter."""
STEP_TOLERANCE = 1e-11
"""A root is found when it moves by less than this share of a grid step."""


def machine_code(*, reorder: bool = False) -> Callable[[Callable], Any]:
    """Compile at the first call and keep; `reorder` lets sums run in vector registers, which spoils exact splits."""
    fast = {"reassoc", "contract", "nsz", "arcp"} if reorder else False

    def wrap(function: Callable) -> Any:
        return njit(cache=True, nogil=True, error_model="numpy", fastmath=fast)(inspect.unwrap(function))

    return wrap


@machine_code()
def lost_bits(a, b, product):
    """a·b − product exactly, product being a·b rounded (Dekker 1971)."""
    s = SPLITTER * a
    a_high = s - (s - a)
    a_low = a - a_high
    s = SPLITTER * b
    b_high = s - (s - b)
    b_low = b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@machine_code()
def turns(t, high, low):
    """t·(high + low) modulo 1, near [−1/2, 1/2], as if worked out with 106 bits."""
    product = t * high
    return (product - np.floor(product + 0.5)) + (lost_bits(t, high, product) + t * low)


@machine_code()
def theta_turns(t, m, logarithms, tail):
    """θ(t)/2π modulo 1 where 2πm² ≤ t < 2π(m + 1)².

    ln(t/2π) = ln m² + ln(n/GRAINS) + ln(1 + x) with the integer n that makes x smallest, so that only t·x is rounded.
    """
    n = int(np.floor(t / (TWO_PI * m * m) * GRAINS + 0.5))
    number = m * m * (n / GRAINS)
    near = TWO_PI * number
    x = ((t - near) - (lost_bits(TWO_PI, number, near) + TWO_PI_LOW * number)) / near
    half = 0.5 * t
    large = turns(t, logarithms[0, m - 1], logarithms[1, m - 1])
    large += turns(half, logarithms[0, n - 1], logarithms[1, n - 1])
    large -= turns(half, logarithms[0, GRAINS - 1], logarithms[1, GRAINS - 1])
    large -= turns(half, INVERSE_TWO_PI, INVERSE_TWO_PI_LOW)
    rest = half * math.log1p(x) + tail[0] / t + tail[1] / t**3 + tail[2] / t**5
    return large - 0.0625 + rest * INVERSE_TWO_PI


@machine_code()
def start_turning(centre, step, terms, logarithms):
    """What the sum starts from: n^{-1/2} e^{-i·centre·ln n} [2, terms], and e^{-i·j·step·ln n} for j = 1..4 and SPAN
    [10, terms], cosines before sines."""
    value = np.empty((2, terms))
    turn = np.empty((10, terms))
    for k in range(terms):
        angle = TWO_PI * turns(centre, logarithms[0, k], logarithms[1, k])
        size = 1.0 / math.sqrt(k + 1.0)
        value[0, k], value[1, k] = size * math.cos(angle), -size * math.sin(angle)
        each = step * (logarithms[0, k] * TWO_PI)
        for j in range(5):
            angle = each * (j + 1 if j < 4 else SPAN)
            turn[2 * j, k], turn[2 * j + 1, k] = math.cos(angle), -math.sin(angle)
    return value, turn


@machine_code(reorder=True)
def sum_span(value, turn, sums, at, forward):
    """Sums over n at SPAN points around index `at`, then turn every n on to the next SPAN points.

    Of a point and its mirror image the products are the same, so a pair costs four multiplications for each n.
    Returns nothing; sums[0] and sums[1] are real and imaginary parts. `forward` is +1 or −1.
    """
    v0, v1 = value[0], value[1]
    c1, s1, c2, s2 = turn[0], turn[1], turn[2], turn[3]
    c3, s3, c4, s4 = turn[4], turn[5], turn[6], turn[7]
    cj, sj = turn[8], turn[9]
    r0, i0 = 0.0, 0.0
    p1, q1, x1, y1 = 0.0, 0.0, 0.0, 0.0
    p2, q2, x2, y2 = 0.0, 0.0, 0.0, 0.0
    p3, q3, x3, y3 = 0.0, 0.0, 0.0, 0.0
    p4, q4, x4, y4 = 0.0, 0.0, 0.0, 0.0
    for k in range(v0.shape[0]):
        a, b = v0[k], v1[k]
        r0 += a
        i0 += b
        p1 += a * c1[k]
        q1 += b * s1[k]
        x1 += a * s1[k]
        y1 += b * c1[k]
        p2 += a * c2[k]
        q2 += b * s2[k]
        x2 += a * s2[k]
        y2 += b * c2[k]
        p3 += a * c3[k]
        q3 += b * s3[k]
        x3 += a * s3[k]
        y3 += b * c3[k]
        p4 += a * c4[k]
        q4 += b * s4[k]
        x4 += a * s4[k]
        y4 += b * c4[k]
        c, s = cj[k], forward * sj[k]
        v0[k] = a * c - b * s
        v1[k] = a * s + b * c
    sums[0, at], sums[1, at] = r0, i0
    sums[0, at + 1], sums[0, at - 1] = p1 - q1, p1 + q1
    sums[1, at + 1], sums[1, at - 1] = y1 + x1, y1 - x1
    sums[0, at + 2], sums[0, at - 2] = p2 - q2, p2 + q2
    sums[1, at + 2], sums[1, at - 2] = y2 + x2, y2 - x2
    sums[0, at + 3], sums[0, at - 3] = p3 - q3, p3 + q3
    sums[1, at + 3], sums[1, at - 3] = y3 + x3, y3 - x3
    sums[0, at + 4], sums[0, at - 4] = p4 - q4, p4 + q4
    sums[1, at + 4], sums[1, at - 4] = y4 + x4, y4 - x4


@machine_code()
def dirichlet_sum(centre, step, middle, points, terms, logarithms):
    """Σ_{n≤terms} n^{-1/2-it} at t = centre + (i − middle)·step, i < points: [2, points + SPAN], the last ones unused.

    The middle point is reached without turning, the ends by half the turns that one end would need from the other.
    """
    sums = np.empty((2, points + 2 * SPAN))
    first, turn = start_turning(centre, step, terms, logarithms)
    value = first.copy()
    at = middle + SPAN  # room for a span that reaches below the first point
    while at - SPAN // 2 < points + SPAN:
        sum_span(value, turn, sums, at, 1.0)
        at += SPAN
    value = first.copy()
    at = middle + SPAN
    while at + SPAN // 2 >= SPAN:
        sum_span(value, turn, sums, at, -1.0)
        at -= SPAN
    return sums[:, SPAN : SPAN + points]


@machine_code()
def euler_maclaurin_tail(t, n, factors):
    """What Σ_{k≤n} k^{-s} lacks of ζ(s), s = ½ + it, over n^{-s}; the error is below the first summand left out
    times |s + 2K + 1| / (½ + 2K + 1)."""
    s = complex(0.5, t)
    power = s / n
    tail = n / (s - 1.0) - 0.5 + factors[0] * power
    for k in range(1, factors.shape[0]):
        power *= (s + (2 * k - 1)) * (s + 2 * k) / (n * n)
        tail += factors[k] * power
    return tail


@machine_code(reorder=True)
def siegel_remainder(a, m, series):
    """(−1)^{m−1} a^{-1/2} Σ_{k≤4} C_k(a − m) a^{-k}; C_0, C_2, C_4 are even in z = 2(a − m) − 1, the others odd."""
    z = 2.0 * (a - m) - 1.0
    w, b = z * z, 1.0 / a
    even, odd = 0.0, 0.0
    b2 = b * b
    for k in range(series.shape[1] - 2, -1, -2):
        even = even * w + (series[0, k] + b2 * (series[2, k] + b2 * series[4, k]))
        odd = odd * w + (series[1, k + 1] + b2 * series[3, k + 1])
    value = (even + b * z * odd) * math.sqrt(b)
    return value if m % 2 else -value


@machine_code()
def hardy_high(centre, step, middle, points, m, logarithms, tail, series):
    """Z on a grid by Riemann and Siegel, m fixed; angles are exact at the centre and small beside it."""
    sums = dirichlet_sum(centre, step, middle, points, m, logarithms)
    values = np.empty(points)
    base = TWO_PI * theta_turns(centre, m, logarithms, tail)
    slope = 0.5 * math.log(centre / TWO_PI)
    for i in range(points):
        delta = (i - middle) * step
        t, x = centre + delta, delta / centre
        # θ(t) − θ(centre): (1 + x)·ln(1 + x) − x as x²(1/2 − x/6 + x²/12 − ...).
        bend = 0.0
        for k in range(10, 1, -1):
            bend = 1.0 / (k * (k - 1)) - x * bend
        angle = base + delta * (slope + 0.5 * x * bend - tail[0] / (t * centre))
        main = math.cos(angle) * sums[0, i] - math.sin(angle) * sums[1, i]
        values[i] = 2.0 * main + siegel_remainder(math.sqrt(t / TWO_PI), m, series)
    return values


@machine_code()
def hardy_low(centre, step, middle, points, logarithms, tail, factors):
    """Z on a grid by Euler and Maclaurin, with as many terms as the height of the last point and ten more."""
    terms = int(centre + (points - middle) * step) + 10
    sums = dirichlet_sum(centre, step, middle, points, terms, logarithms)
    values = np.empty(points)
    for i in range(points):
        t = centre + (i - middle) * step
        phase = TWO_PI * turns(t, logarithms[0, terms - 1], logarithms[1, terms - 1])
        last = complex(math.cos(phase), -math.sin(phase)) / math.sqrt(terms)
        zeta = complex(sums[0, i], sums[1, i]) + last * euler_maclaurin_tail(t, terms, factors)
        rest = 0.0
        for k in range(tail.shape[0] - 1, -1, -1):
            rest = rest / (t * t) + tail[k]
        theta = 0.5 * t * (math.log(t / TWO_PI) - 1.0) - math.pi / 8 + rest / t
        values[i] = math.cos(theta) * zeta.real - math.sin(theta) * zeta.imag
    return values


@machine_code()
def interpolate(values, x):
    """The polynomial through the NODES grid values around position x, in grid steps."""
    j = int(x)
    u = x - j
    if u == 0.0:
        return values[j]
    top, bottom = 0.0, 0.0
    for k in range(NODES):
        share = WEIGHTS[k] / (u + (HALF - 1 - k))
        top += share * values[j - HALF + 1 + k]
        bottom += share
    return top / bottom


@machine_code()
def root(values, a, at_a, b, at_b):
    """Where the interpolant changes sign between a and b, by the rule of Anderson and Björck (1973)."""
    x = a
    for _ in range(100):
        before = x
        x = a - at_a * (b - a) / (at_b - at_a)
        at_x = interpolate(values, x)
        if at_x == 0.0 or abs(x - before) < STEP_TOLERANCE:
            return x
        if (at_x < 0.0) != (at_b < 0.0):
            a, at_a = b, at_b
        else:
            scale = 1.0 - at_x / at_b
            at_a *= scale if scale > 0.0 else 0.5
        b, at_b = x, at_x
    return x


@machine_code()
def dip(values, j):
    """Where |interpolant| is least in [j − 1, j + 1], by golden section; stops where the sign has changed."""
    positive = values[j] >= 0.0
    a, b = j - 1.0, j + 1.0
    ratio = 0.6180339887498949
    x, y = b - ratio * (b - a), a + ratio * (b - a)
    at_x, at_y = interpolate(values, x), interpolate(values, y)
    for _ in range(60):
        if (at_x >= 0.0) != positive:
            return x, at_x
        if (at_y >= 0.0) != positive:
            return y, at_y
        if abs(at_x) < abs(at_y):
            b, y, at_y = y, x, at_x
            x = b - ratio * (b - a)
            at_x = interpolate(values, x)
        else:
            a, x, at_x = x, y, at_y
            y = a + ratio * (b - a)
            at_y = interpolate(values, y)
    return x, at_x


@machine_code()
def zeros_on_grid(values, first, last, positions, facts):
    """Positions of the zeros in [first, last), both grid indices; returns how many.

    Facts: [0] the least, over neighbouring zeros, of the largest |Z| seen between them: how surely they are two;
    [1] and [2] the largest |Z| before the first and after the last zero; [3] dips that do not reach the axis.
    """
    count, peak = 0, 0.0
    facts[0], facts[1], facts[2], facts[3] = np.inf, 0.0, 0.0, 0.0
    found = np.empty(2)
    for j in range(first, last + 1):
        here, after, before = values[j], values[j + 1], values[j - 1]
        positive = here >= 0.0
        between, new = 0.0, 0
        if (before >= 0.0) == positive and (after >= 0.0) == positive:
            peak_at = abs(here)
            if peak_at < abs(before) and peak_at <= abs(after):
                x, at_x = dip(values, j)
                if (at_x >= 0.0) == positive:
                    facts[3] += 1.0
                else:
                    found[0] = root(values, j - 1.0, before, x, at_x)
                    found[1] = root(values, x, at_x, j + 1.0, after)
                    between, new = abs(at_x), 2
        elif (after >= 0.0) != positive:
            peak = max(peak, abs(here))
            found[0] = root(values, float(j), here, j + 1.0, after)
            new = 1
        for k in range(new):
            if first <= found[k] < last:
                if count == 0:
                    facts[1] = peak
                else:
                    midway = interpolate(values, 0.5 * (positions[count - 1] + found[k]))
                    facts[0] = min(facts[0], max(peak, abs(midway)))
                positions[count] = found[k]
                count += 1
                peak = between if k == 0 else 0.0
        if new == 0:
            peak = max(peak, abs(here))
    facts[2] = peak
    return count


@machine_code()
def polished(t, step, m, logarithms, tail, series):
    """A zero where Z is flat (STEEP): a grid of its own around it, free of what the long block has rounded."""
    middle = HALF + 2
    values = hardy_high(t, step, middle, 2 * middle + 1, m, logarithms, tail, series)
    x = float(middle)
    slope = (interpolate(values, x + 0.01) - interpolate(values, x - 0.01)) / 0.02
    x -= interpolate(values, x) / slope
    return t + (x - interpolate(values, x) / slope - middle) * step


@machine_code()
def zeros_of_block(centre, step, half, m, logarithms, tail, series, factors, heights, facts):
    """Zeros in [centre − half·step, centre + half·step), into `heights`; returns how many (see zeros_on_grid).

    Args:
        m: terms of the Riemann-Siegel sum; 0 for Euler and Maclaurin.
    """
    pad = HALF + 2
    middle, points = half + pad, 2 * (half + pad) + 1
    if m == 0:
        values = hardy_low(centre, step, middle, points, logarithms, tail, factors)
    else:
        values = hardy_high(centre, step, middle, points, m, logarithms, tail, series)
    count = zeros_on_grid(values, pad, pad + 2 * half, heights, facts)
    for k in range(count):
        x = heights[k]
        heights[k] = centre + (x - middle) * step
        rise = interpolate(values, x + 0.01) - interpolate(values, x - 0.01)
        if m > 0 and abs(rise) < 0.02 * step * STEEP:
            heights[k] = polished(heights[k], step, m, logarithms, tail, series)
    return count
