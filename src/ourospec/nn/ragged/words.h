/* Words, layouts and products: what attention.c is made of.

   Operands are seen as 32-bit words: one float, or two bfloat16 that follow each other along the dimension that is
   summed (as AMX and AVX-512 BF16 want them), so that both types share all code but the innermost product. A product's
   left operand is [M, K] row by row; its right one is words, [K/PAIR, N]; sums are float, [M, N]. */

#ifndef OUROSPEC_WORDS_H
#define OUROSPEC_WORDS_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if BF16
typedef uint16_t elem;
#define PAIR 2
#else
typedef float elem;
#define PAIR 1
#endif
#if BF16 && defined(__AMX_BF16__)
#define TILES 1
#else
#define TILES 0
#endif

typedef uint32_t word;
typedef int64_t i64;

/* Queries in a vector and in a block, of which keys are taken in multiples, too; bytes of a cache line. */
enum { LANES = 16, BLOCK = 2 * LANES, LINE = 64 };

static inline i64 up(i64 n, i64 step) { return (n + step - 1) / step * step; }
static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }

/* ---- numbers ---- */

static inline __m512 load_elems(const elem *x) {
#if BF16
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
#else
    return _mm512_loadu_ps(x);
#endif
}

static inline void store_elems(elem *y, __m512 x) {
#if BF16
    _mm256_storeu_si256((__m256i *)y, (__m256i)_mm512_cvtneps_pbh(x));
#else
    _mm512_storeu_ps(y, x);
#endif
}

/* 2^x for x <= 0, to two units in the last place; below 2^-125 that, since subnormal results take a hundred cycles. */
static inline __m512 exp2_of(__m512 x) {
    /* In this order: of what is no number the maximum is the second. */
    x = _mm512_max_ps(_mm512_set1_ps(-125.0f), x);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
    /* Taylor's series of 2^f about 0, |f| <= 1/2: ln(2)^k / k!; what is left is 4e-5 in bfloat16, 2e-8 in float. */
    __m512 p = _mm512_set1_ps(9.6181291076e-3f);
    if (!BF16) {
        p = _mm512_fmadd_ps(_mm512_set1_ps(1.5252733804e-5f), f, _mm512_set1_ps(1.5403530393e-4f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558146e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291076e-3f));
    }
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504108665e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022650696e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718056e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

static inline float dot(const elem *x, const elem *y, i64 d) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 c = 0; c < d; c += LANES) sum = _mm512_fmadd_ps(load_elems(x + c), load_elems(y + c), sum);
    return _mm512_reduce_add_ps(sum);
}

/* ---- layouts ---- */

/* Working memory of a thread. */
typedef struct {
    char *at;
} Arena;

static inline void *take(Arena *a, i64 bytes) {
    void *x = a->at;
    a->at += up(bytes, LINE);
    return x;
}

static inline void transpose_16x16(const word *x, i64 ldx, word *y, i64 ldy) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(x + i * ldx);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(y + i * ldy, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(y + (i + 4) * ldy, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_storeu_si512(y + (i + 8) * ldy, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
        _mm512_storeu_si512(y + (i + 12) * ldy, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    }
}

/* y[c][r] = x[r][c]; rows and columns in sixteens. */
static void transpose(const word *x, i64 ldx, i64 rows, i64 columns, word *y, i64 ldy) {
    for (i64 r = 0; r < rows; r += 16)
        for (i64 c = 0; c < columns; c += 16) transpose_16x16(x + r * ldx + c, ldx, y + c * ldy + r, ldy);
}

/* Rows of elements, one after the other, as words whose parts follow each other down a column. */
static void pair_rows(const elem *x, i64 stride, i64 rows, i64 columns, word *y) {
#if BF16
    for (i64 r = 0; r < rows; r += 2)
        for (i64 c = 0; c < columns; c += 16) {
            __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + r * stride + c)));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + (r + 1) * stride + c)));
            _mm512_storeu_si512(y + r / 2 * columns + c, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
#else
    for (i64 r = 0; r < rows; r++) memcpy(y + r * columns, x + r * stride, (size_t)columns * sizeof *y);
#endif
}

/* `count` rows of d elements side by side, and zeros up to `padded` rows. */
static void gather_rows(const elem *x, i64 stride, i64 count, i64 padded, i64 d, elem *y) {
    for (i64 r = 0; r < count; r++) memcpy(y + r * d, x + r * stride, (size_t)d * sizeof *y);
    memset(y + count * d, 0, (size_t)((padded - count) * d) * sizeof *y);
}

/* Two rows of a right operand, [K/PAIR, N], of one vector of its columns. */
static inline void store_pair(word *y, i64 stride, __m512 even, __m512 odd) {
#if BF16
    (void)stride;
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    _mm512_storeu_si512(y, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
    _mm512_storeu_ps((float *)y, even);
    _mm512_storeu_ps((float *)y + stride, odd);
#endif
}

/* ---- products ---- */

#if TILES
static inline void set_tiles(void) {
    struct __attribute__((packed)) {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    _tile_loadconfig(&shapes);
}
static inline void release_tiles(void) { _tile_release(); }
#else
static inline void set_tiles(void) {}
static inline void release_tiles(void) {}
#endif

/* sums [M, N] = or += left [M, K] right [K, N]. M and K in blocks, N in vectors. */
#if TILES
static void multiply(i64 M, i64 N, i64 K, const elem *left, i64 ldl, const word *right, i64 ldr, float *sums,
                     i64 lds, int add) {
    for (i64 n = 0; n < N; n += 32) {
        int two = N - n > 16;
        for (i64 m = 0; m < M; m += 32) {
            float *s = sums + m * lds + n;
            if (add) {
                _tile_loadd(0, s, lds * 4);
                _tile_loadd(1, s + 16 * lds, lds * 4);
                if (two) {
                    _tile_loadd(2, s + 16, lds * 4);
                    _tile_loadd(3, s + 16 * lds + 16, lds * 4);
                }
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (i64 k = 0; k < K; k += 32) {
                _tile_loadd(4, left + m * ldl + k, ldl * 2);
                _tile_loadd(5, left + (m + 16) * ldl + k, ldl * 2);
                _tile_loadd(6, right + k / 2 * ldr + n, ldr * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 5, 6);
                if (two) {
                    _tile_loadd(7, right + k / 2 * ldr + n + 16, ldr * 4);
                    _tile_dpbf16ps(2, 4, 7);
                    _tile_dpbf16ps(3, 5, 7);
                }
            }
            _tile_stored(0, s, lds * 4);
            _tile_stored(1, s + 16 * lds, lds * 4);
            if (two) {
                _tile_stored(2, s + 16, lds * 4);
                _tile_stored(3, s + 16 * lds + 16, lds * 4);
            }
        }
    }
}
#else
/* A step of a sum: the words of a left row, in all lanes, times those of a right row. */
static inline __m512 step(__m512 sum, __m512i left, __m512i right) {
#if BF16
    return _mm512_dpbf16_ps(sum, (__m512bh)right, (__m512bh)left);
#else
    return _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum);
#endif
}

/* Rows whose sums are held in registers: more would not fit, fewer would leave the arithmetic waiting. */
enum { ROWS = 8 };

/* Inlined with `vectors` known, so that the loops over rows and vectors vanish. */
static inline __attribute__((always_inline)) void multiply_few(i64 K, const elem *left, i64 ldl, const word *right,
                                                               i64 ldr, float *sums, i64 lds, int add, int vectors) {
    __m512 s[ROWS][2];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < vectors; j++)
            s[i][j] = add ? _mm512_loadu_ps(sums + i * lds + j * LANES) : _mm512_setzero_ps();
    for (i64 k = 0; k < K / PAIR; k++) {
        __m512i r[2];
        for (int j = 0; j < vectors; j++) r[j] = _mm512_loadu_si512(right + k * ldr + j * LANES);
        for (int i = 0; i < ROWS; i++) {
            word l;
            memcpy(&l, left + i * ldl + k * PAIR, sizeof l);
            for (int j = 0; j < vectors; j++) s[i][j] = step(s[i][j], _mm512_set1_epi32((int)l), r[j]);
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < vectors; j++) _mm512_storeu_ps(sums + i * lds + j * LANES, s[i][j]);
}

static void multiply(i64 M, i64 N, i64 K, const elem *left, i64 ldl, const word *right, i64 ldr, float *sums,
                     i64 lds, int add) {
    for (i64 n = 0; n < N; n += 32)
        for (i64 m = 0; m < M; m += ROWS) {
            float *s = sums + m * lds + n;
            if (N - n > 16)
                multiply_few(K, left + m * ldl, ldl, right + n, ldr, s, lds, add, 2);
            else
                multiply_few(K, left + m * ldl, ldl, right + n, ldr, s, lds, add, 1);
        }
}
#endif

#endif
