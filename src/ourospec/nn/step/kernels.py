"""The machine code of a decoding step: a token's way through all layers without Python in between.

Numba compiles these functions when they are first called and keeps the result beside this file. It looks at this
file alone to see whether that is still good, so everything that it compiles stands here.

Letters: B rows, D width, H query heads, G key-value heads, d width of a head, L layers, K passes at most,
M inner width of the position-wise network, R and N rows and columns of a matrix, C capacity of the cache.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

# Sums may be reordered, which is what lets them run in vector registers. Not "nnan" and "ninf": a model that has
# diverged must be seen to give NaN.
FAST_MATHS = {"reassoc", "contract", "nsz", "arcp"}
LOG2_E = np.float32(math.log2(math.e))
ROOT_HALF = np.float32(0.5**0.5)
ONE, HALF = np.float32(1), np.float32(0.5)


def machine_code(function: Callable) -> Any:
    """Compile at the first call and keep; the tests' type checks around it are taken off first."""
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST_MATHS)(inspect.unwrap(function))


# Numba hands the context over itself, which a type checker cannot know.
compiled_as: Any = intrinsic


@compiled_as
def float_of_bits(context, bits):  # noqa: ARG001
    """The float32 that these 32 bits spell."""
    del context

    def generate(target, builder, signature, arguments):
        return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

    return types.float32(types.int32), generate


@compiled_as
def float_pointer(context, address):  # noqa: ARG001
    """Where float32 numbers lie in memory."""
    del context

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), generate


@machine_code
def exponential(x):
    """eˣ to 1e-6 relative, by 2ᵏ·2ʳ with a polynomial for 2ʳ: unlike a library's, it runs in vector registers."""
    # By comparisons, not min and max: these would lose a NaN.
    t = x * LOG2_E
    t = np.float32(-126) if t < np.float32(-126) else t
    t = np.float32(126) if t > np.float32(126) else t
    k = np.int32(t + np.float32(256.5)) - np.int32(256)
    r = t - np.float32(k)
    # Taylor's series of 2ʳ; |r| <= 1/2.
    p = np.float32(1.5403530e-4)
    p = p * r + np.float32(1.3333558e-3)
    p = p * r + np.float32(9.6181291e-3)
    p = p * r + np.float32(5.5504109e-2)
    p = p * r + np.float32(2.4022651e-1)
    p = p * r + np.float32(6.9314718e-1)
    return (p * r + ONE) * float_of_bits((k + np.int32(127)) << np.int32(23))


@machine_code
def gelu(x):
    """x·Φ(x), by the error function's approximation 7.1.26 of Abramowitz and Stegun (1964), good to 1.5e-7."""
    z = abs(x) * ROOT_HALF
    t = ONE / (ONE + np.float32(0.3275911) * z)
    p = np.float32(1.061405429)
    p = p * t - np.float32(1.453152027)
    p = p * t + np.float32(1.421413741)
    p = p * t - np.float32(0.284496736)
    p = p * t + np.float32(0.254829592)
    tail = HALF * p * t * exponential(-z * z)
    return x * (tail if x < 0 else ONE - tail)


@machine_code
def strip(matrix, scales, r, inputs, b, outputs):
    """Rows r to r + 4 of the matrix times row b of the inputs: each input is loaded once for four products.

    Elements are addressed one by one: a view of a row would be counted as a reference, which costs more than it.
    """
    a0 = a1 = a2 = a3 = np.float32(0)
    for i in range(matrix.shape[1]):
        x = inputs[b, i]
        a0 += np.float32(matrix[r, i]) * x
        a1 += np.float32(matrix[r + 1, i]) * x
        a2 += np.float32(matrix[r + 2, i]) * x
        a3 += np.float32(matrix[r + 3, i]) * x
    outputs[b, r], outputs[b, r + 1] = a0 * scales[r], a1 * scales[r + 1]
    outputs[b, r + 2], outputs[b, r + 3] = a2 * scales[r + 2], a3 * scales[r + 3]


@machine_code
def tile(matrix, scales, r, inputs, b, c, outputs):
    """The same for two rows of the inputs: each weight is loaded, and turned into a float, once for both."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
    for i in range(matrix.shape[1]):
        w0, w1 = np.float32(matrix[r, i]), np.float32(matrix[r + 1, i])
        w2, w3 = np.float32(matrix[r + 2, i]), np.float32(matrix[r + 3, i])
        x, y = inputs[b, i], inputs[c, i]
        a0 += w0 * x
        a1 += w1 * x
        a2 += w2 * x
        a3 += w3 * x
        b0 += w0 * y
        b1 += w1 * y
        b2 += w2 * y
        b3 += w3 * y
    outputs[b, r], outputs[b, r + 1] = a0 * scales[r], a1 * scales[r + 1]
    outputs[b, r + 2], outputs[b, r + 3] = a2 * scales[r + 2], a3 * scales[r + 3]
    outputs[c, r], outputs[c, r + 1] = b0 * scales[r], b1 * scales[r + 1]
    outputs[c, r + 2], outputs[c, r + 3] = b2 * scales[r + 2], b3 * scales[r + 3]


@machine_code
def multiply(matrix, scales, inputs, rows, count, outputs):
    """outputs[b, :R] = scales ⊙ (matrix · inputs[b, :N]) for b in rows[:count]; matrix [R, N], int8 or float32.

    The weights stream through once; each strip of them meets all rows of the batch while it is near.
    """
    whole = matrix.shape[0] - matrix.shape[0] % 4
    if count == 1:
        # A loop of its own, free of what pairs need: in 8 bits twice as fast.
        for r in range(0, whole, 4):
            strip(matrix, scales, r, inputs, rows[0], outputs)
    else:
        for r in range(0, whole, 4):
            for j in range(0, count - 1, 2):
                tile(matrix, scales, r, inputs, rows[j], rows[j + 1], outputs)
            if count % 2:
                strip(matrix, scales, r, inputs, rows[count - 1], outputs)
    for r in range(whole, matrix.shape[0]):
        for j in range(count):
            outputs[rows[j], r] = scales[r] * dot(matrix[r], inputs[rows[j]])


@machine_code
def dot(a, b):
    """Σ a·b over the length of a."""
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += np.float32(a[i]) * b[i]
    return total


@machine_code
def normalise(x, gain, read, eps, out):
    """out = x / sqrt(mean(x²) + eps) ⊙ gain ⊙ read."""
    unit = ONE / np.float32(math.sqrt(dot(x, x) / np.float32(x.shape[0]) + eps))
    for i in range(x.shape[0]):
        out[i] = x[i] * unit * gain[i] * read[i]


@machine_code
def turn(heads, count, head_dim, cos, sin):
    """Rotary embedding of the first `count` heads, in place."""
    half = cos.shape[0]
    for n in range(count):
        head = heads[n * head_dim : (n + 1) * head_dim]
        for i in range(half):
            a, b = head[i], head[half + i]
            head[i] = a * cos[i] - b * sin[i]
            head[half + i] = b * cos[i] + a * sin[i]


@machine_code
def attend(queries, keys, values, start, end, heads, scratch, out):
    """softmax(q kᵀ/√d) v over positions start to end of one row's keys and values [G, C, d]."""
    head_dim, seen = keys.shape[2], end - start
    scale, weights = ONE / np.float32(math.sqrt(head_dim)), scratch[:seen]
    for n in range(heads):
        group = n // (heads // keys.shape[0])
        q, mixed = queries[n * head_dim : (n + 1) * head_dim], out[n * head_dim : (n + 1) * head_dim]
        # Cut out first, so that all loops run from 0: the compiler then leaves out its care for negative indices.
        k, v = keys[group, start:end], values[group, start:end]
        for s in range(seen):
            weights[s] = dot(k[s], q)
        largest = weights[0]
        for s in range(seen):
            largest = weights[s] if weights[s] > largest else largest
        total = np.float32(0)
        for s in range(seen):
            weights[s] = exponential((weights[s] - largest) * scale)
        for s in range(seen):
            total += weights[s]
        mixed[:] = 0
        share, whole = ONE / total, seen - seen % 4
        for s in range(0, whole, 4):
            p0, p1, p2, p3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
            v0, v1, v2, v3 = v[s], v[s + 1], v[s + 2], v[s + 3]
            for i in range(head_dim):
                mixed[i] += p0 * v0[i] + p1 * v1[i] + p2 * v2[i] + p3 * v3[i]
        for s in range(whole, seen):
            p, row = weights[s], v[s]
            for i in range(head_dim):
                mixed[i] += p * row[i]
        for i in range(head_dim):
            mixed[i] *= share


@machine_code
def activate(inner, hidden, gated):
    """In place: silu(first half) ⊙ second half, or gelu; what counts afterwards are the first `hidden` numbers."""
    if gated:
        for i in range(hidden):
            inner[i] = inner[i] / (ONE + exponential(-inner[i])) * inner[hidden + i]
    else:
        for i in range(hidden):
            inner[i] = gelu(inner[i])


@machine_code
def look_back(h, change, before, step_before, first):
    """The gate's figures: ‖h‖, ‖dh‖, ‖dh‖/‖h‖, cos(dh, dh_previous) and their relative distance; see nn.gate.Update."""
    size = np.float32(math.sqrt(dot(h, h))) + np.float32(1e-8)
    step = np.float32(math.sqrt(dot(change, change)))
    relative = min(step / size, np.float32(10))
    if first:
        return size, step, relative, np.float32(0), ONE
    product = dot(change, before)
    apart = max(step * step + step_before * step_before - 2 * product, np.float32(0))
    turning = product / (step * step_before + np.float32(1e-8))
    second = np.float32(math.sqrt(apart)) / (step + step_before + np.float32(1e-8))
    return size, step, relative, turning, second


@machine_code
def bid(gate, layer, index, state, change, figures):
    """The gate's logit after pass `index`; see nn.gate.ContinueGate, and pack.GatePack for the arrays."""
    see, state_columns, scalar_columns, pass_bias, output, output_bias = gate
    seen, size = see.shape[1] // 2, figures[0]
    features = np.empty(seen, np.float32)
    stretch = np.float32(math.sqrt(change.shape[0])) / size
    for i in range(seen):
        features[i] = dot(see[layer, i], state) + dot(see[layer, seen + i], change) * stretch
    logit = output_bias[layer, 0, 0]
    for j in range(output.shape[2]):
        hidden = pass_bias[layer, index, j] + dot(state_columns[layer, j], features)
        for n in range(3):
            hidden += scalar_columns[layer, n, j] * figures[2 + n]
        logit += output[layer, 0, j] * gelu(hidden)
    return logit


@machine_code
def update_rows(h, layer, index, parts, store, places, rows, count, work):
    """One pass of one layer, as far as its scaled update, for the rows that are still in it; see nn.depth."""
    shape, eps, matrices, scales, vectors, _, _, turns = parts
    heads, groups, window, gated = shape
    qkv, out, up, down = matrices
    norms, reads, writes = vectors
    state, joint, mixed, attended, inner, change, weights = work
    (keys, values), (lines, past) = store, places
    width, head_dim = h.shape[1], h.shape[1] // heads
    # Later passes ask with a token's own state alone; the keys and values are those of the first.
    asked = qkv.shape[1] if index == 0 else width
    for j in range(count):
        normalise(h[rows[j]], norms[layer, 0], reads[layer, index], eps, state[rows[j]])
    multiply(qkv[layer, :asked], scales[0][layer], state, rows, count, joint)
    for j in range(count):
        b = rows[j]
        # Where rows are positions of one text, those before have left their keys here a moment ago.
        line, position, row = lines[b], past[b], joint[b]
        turn(row, heads + groups if index == 0 else heads, head_dim, turns[0][position], turns[1][position])
        if index == 0:
            for g in range(groups):
                begin = width + g * head_dim
                keys[line, g, position] = row[begin : begin + head_dim]
                begin += groups * head_dim
                values[line, g, position] = row[begin : begin + head_dim]
        start = max(0, position + 1 - window) if window else 0
        attend(row, keys[line], values[line], start, position + 1, heads, weights, mixed[b])
    multiply(out[layer], scales[1][layer], mixed, rows, count, attended)
    for j in range(count):
        b = rows[j]
        for i in range(width):
            change[b, i] = h[b, i] + attended[b, i]
        normalise(change[b], norms[layer, 1], reads[layer, index], eps, mixed[b])
    own = min(index, up.shape[1] - 1)
    multiply(up[layer, own], scales[2][layer, own], mixed, rows, count, inner)
    for j in range(count):
        activate(inner[rows[j]], down.shape[3], gated)
    multiply(down[layer, own], scales[3][layer, own], inner, rows, count, change)
    for j in range(count):
        b = rows[j]
        for i in range(width):
            change[b, i] = writes[layer, index, i] * (attended[b, i] + change[b, i])


@machine_code
def run_layer(h, layer, parts, store, places, work, counts):
    """h through one layer, in place; `counts` [B] takes the passes. A row that halts is in no later product."""
    gate, (limit, gates, by_survival, threshold) = parts[5], parts[6]
    rows, count = np.arange(h.shape[0]), h.shape[0]
    survival, steps = np.ones(count, np.float32), np.zeros(count, np.float32)
    before = np.empty_like(h)
    state, change = work[0], work[5]
    for index in range(limit):
        update_rows(h, layer, index, parts, store, places, rows, count, work)
        asked, stay = index < gates, 0
        for j in range(count):
            b = rows[j]
            counts[b] += 1
            weight = survival[b] if by_survival and index else ONE
            if asked:
                figures = look_back(h[b], change[b], before[b], steps[b], index == 0)
                logit = bid(gate, layer, index, state[b], change[b], figures)
                survival[b] *= ONE / (ONE + exponential(-logit))
                steps[b] = figures[1]
                before[b] = change[b]
            for i in range(h.shape[1]):
                h[b, i] += weight * change[b, i]
            if not asked or survival[b] >= threshold:
                rows[stay] = b
                stay += 1
        count = stay
        if count == 0:
            break


@machine_code
def advance(
    x, shape, eps, matrices, scales, vectors, gate, halting, turns, addresses, capacity, places, final_gain
):
    """One position of every row through all layers and the final norm.

    Args:
        x: [B, D], embeddings after the baton; lost.
        shape: H, G, the window (0: none), whether the position-wise network is gated.
        matrices: qkv [L, (H + 2G)d, D], out [L, D, D], up [L, 1 or K, M or 2M, D], down [L, 1 or K, D, M];
            `scales` of their rows.
        vectors: gains of both norms [L, 2, D], and what each pass reads and writes by, [L, K, D].
        gate: see pack.GatePack.
        halting: passes at most, gates that are asked, whether survival weighs the update (1) or not (0), threshold.
        turns: cosines and sines by position.
        addresses: [L, 2], where each layer's keys and values [B, G, C, d] lie.
        places: two of [B], which line of the keys and values a row has, and its position there. Rows may share a line,
            at positions that follow each other: several positions of one text.

    Returns:
        states [B, D] and passes [L, B].
    """
    batch, width = x.shape
    head_dim, hidden = width // shape[0], matrices[2].shape[2]
    work = (
        np.empty((batch, width), np.float32),
        np.empty((batch, matrices[0].shape[1]), np.float32),
        np.empty((batch, width), np.float32),
        np.empty((batch, width), np.float32),
        np.empty((batch, hidden), np.float32),
        np.empty((batch, width), np.float32),
        np.empty(capacity, np.float32),
    )
    counts = np.zeros((addresses.shape[0], batch), np.int64)
    ones = np.ones(width, np.float32)
    extent = (batch, shape[1], capacity, head_dim)
    for layer in range(addresses.shape[0]):
        store = (
            carray(float_pointer(addresses[layer, 0]), extent),
            carray(float_pointer(addresses[layer, 1]), extent),
        )
        parts = (shape, eps, matrices, scales, vectors, gate, halting, turns)
        run_layer(x, layer, parts, store, places, work, counts[layer])
    states = np.empty_like(x)
    for b in range(batch):
        normalise(x[b], final_gain, ones, eps, states[b])
    return states, counts


@machine_code
def project(matrix, scales, states):
    """matrix · states: [B, D] -> [B, V]."""
    out = np.empty((states.shape[0], matrix.shape[0]), np.float32)
    multiply(matrix, scales, states, np.arange(states.shape[0]), states.shape[0], out)
    return out
