/* Causal attention of ragged queries: each row of a batch has some, each of which sees a run of the row's keys.

   softmax(q k'/sqrt d) v as in Dao et al. 2022 (arXiv 2205.14135): weights are not kept but computed again in the
   backward pass, from each query's log-sum-exp. Everything is computed transposed, [keys, queries], with a query in
   each lane of a vector: maxima, sums and masks take no step across lanes, and a block's weights lie at once as the
   next product wants them.

   Compiled once for each type: -DBF16=0 or 1. Letters: B rows, H query heads, G key-value heads, S keys, d width of a
   head, N queries of all rows. */

#include "words.h"

#if TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef struct {
    i64 rows, heads, groups, keys, width; /* B, H, G, S, d */
    i64 count;                            /* N */
    const int32_t *starts;                /* [B + 1], each row's first query */
    const int32_t *first, *end;           /* [N], the keys that a query sees; in a row, ends ascend */
    const elem *q;                        /* [H, N, d] */
    const elem *k, *v;                    /* [B, G, S, d] */
    i64 row_stride, group_stride, key_stride;
    float scale; /* of the logits */
    elem *out;   /* [N, H, d] */
    float *lse;  /* [H, N], log2 of the sum of the exponentials */
} Problem;

typedef struct {
    const elem *out; /* [N, H, d] */
    elem *q;         /* [H, N, d] */
    elem *k, *v;     /* [B, G, S, d] */
    i64 row_stride, group_stride, key_stride;
    int add; /* to what k and v hold */
} Gradients;

/* ---- a row's keys and values ---- */

typedef struct {
    const elem *at;
    i64 stride;
} Rows;

/* How far the queries of a row see, in blocks. */
static i64 reach(const Problem *p, i64 row) {
    int32_t to = 0;
    for (i64 n = p->starts[row]; n < p->starts[row + 1]; n++)
        if (p->end[n] > to) to = p->end[n];
    return up(to, BLOCK);
}

/* `padded` rows: where they stand, if there are so many, or a copy that ends in zeros. */
static Rows rows_of(const Problem *p, const elem *x, i64 padded, Arena *a) {
    if (padded <= p->keys) return (Rows){x, p->key_stride};
    elem *copy = take(a, padded * p->width * (i64)sizeof(elem));
    gather_rows(x, p->key_stride, p->keys, padded, p->width, copy);
    return (Rows){copy, p->width};
}

/* The same as a left operand, [d, padded]. */
static const elem *turned_rows(Rows x, i64 padded, i64 d, Arena *a) {
    word *turned = take(a, padded * d * (i64)sizeof(elem)), *pairs = take(a, padded * d * (i64)sizeof(elem));
    pair_rows(x.at, x.stride, padded, d, pairs);
    transpose(pairs, d, padded / PAIR, d, turned, padded / PAIR);
    return (elem *)turned;
}

/* ---- a block of a row's queries ---- */

typedef struct {
    i64 query, count; /* the first, and how many; places left over repeat the last, and nobody reads them */
    i64 vectors;      /* that hold them */
    i64 from, to;     /* the keys that any of them sees, in blocks */
    __m512i first[2], end[2];
    i64 all_first[2], all_end[2]; /* the keys that all queries of a vector see */
} Block;

static Block block_of(const Problem *p, i64 query, i64 last) {
    Block b = {.query = query, .count = least(BLOCK, last - query)};
    b.vectors = up(b.count, LANES) / LANES;
    int32_t first[BLOCK], end[BLOCK], from = INT32_MAX, to = 0;
    for (i64 i = 0; i < BLOCK; i++) {
        i64 n = query + least(i, b.count - 1);
        first[i] = p->first[n];
        end[i] = p->end[n];
        if (first[i] < from) from = first[i];
        if (end[i] > to) to = end[i];
    }
    b.from = from / BLOCK * BLOCK;
    b.to = up(to, BLOCK);
    for (int j = 0; j < 2; j++) {
        b.first[j] = _mm512_loadu_si512(first + j * LANES);
        b.end[j] = _mm512_loadu_si512(end + j * LANES);
        b.all_first[j] = _mm512_reduce_max_epi32(b.first[j]);
        b.all_end[j] = _mm512_reduce_min_epi32(b.end[j]);
    }
    return b;
}

/* Which queries of a vector see a key. */
static inline __mmask16 sees(const Block *b, int j, i64 key) {
    if (key >= b->all_first[j] && key < b->all_end[j]) return 0xffff;
    __m512i at = _mm512_set1_epi32((int)key);
    return _mm512_cmple_epi32_mask(b->first[j], at) & _mm512_cmplt_epi32_mask(at, b->end[j]);
}

/* A row for each query as a right operand, [d, BLOCK]; `rows` is left holding them, and zeros. */
static void right_of(const elem *x, i64 stride, const Block *b, i64 d, elem *rows, word *y) {
    gather_rows(x, stride, b->count, BLOCK, d, rows);
    transpose((const word *)rows, d / PAIR, BLOCK, d / PAIR, y, BLOCK);
}

/* Sums [d, BLOCK], each query's times its factor, to its row of y; `turned` holds as much. */
static void give(float *sums, i64 d, const Block *b, const __m512 *factor, float *turned, elem *y, i64 stride) {
    for (i64 c = 0; c < d; c++)
        for (int j = 0; j < b->vectors; j++) {
            float *s = sums + c * BLOCK + j * LANES;
            _mm512_storeu_ps(s, _mm512_mul_ps(_mm512_loadu_ps(s), factor[j]));
        }
    transpose((word *)sums, BLOCK, d, b->vectors * LANES, (word *)turned, d);
    for (i64 i = 0; i < b->count; i++)
        for (i64 c = 0; c < d; c += LANES) store_elems(y + i * stride + c, _mm512_loadu_ps(turned + i * d + c));
}

/* ---- forward ---- */

static __m512 base2(float scale) { return _mm512_set1_ps(scale * 1.44269504f); }

/* Weights, but for their sum, of a vector of queries: logits [keys, BLOCK] to words [keys/PAIR, BLOCK].
   Returns one over the sum; lse [LANES] gets its logarithm. */
static __m512 weigh(const float *logits, const Block *b, int j, __m512 c, word *weights, float *lse) {
    __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    i64 span = b->to - b->from;
    for (i64 i = 0; i < span; i++)
        top = _mm512_mask_max_ps(top, sees(b, j, b->from + i), top, _mm512_loadu_ps(logits + i * BLOCK));
    top = _mm512_mul_ps(top, c);
    for (i64 i = 0; i < span; i += 2) {
        __m512 pair[2];
        for (int o = 0; o < 2; o++) {
            __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(logits + (i + o) * BLOCK), c, top);
            pair[o] = _mm512_maskz_mov_ps(sees(b, j, b->from + i + o), exp2_of(x));
        }
        total = _mm512_add_ps(total, _mm512_add_ps(pair[0], pair[1]));
        store_pair(weights + i / PAIR * BLOCK, BLOCK, pair[0], pair[1]);
    }
    float tops[LANES], totals[LANES];
    _mm512_storeu_ps(tops, top);
    _mm512_storeu_ps(totals, total);
    for (int i = 0; i < LANES; i++) lse[i] = tops[i] + log2f(totals[i]);
    return _mm512_div_ps(_mm512_set1_ps(1.0f), total);
}

static void forward_head(const Problem *p, i64 row, i64 head, Rows k, const elem *vt, i64 padded, Arena a) {
    i64 d = p->width, N = p->count, H = p->heads, last = p->starts[row + 1];
    elem *rows = take(&a, BLOCK * d * (i64)sizeof(elem));
    word *q = take(&a, BLOCK * d * 4);
    float *logits = take(&a, padded * BLOCK * 4), *sums = take(&a, BLOCK * d * 4), *turned = take(&a, BLOCK * d * 4);
    word *weights = BF16 ? take(&a, padded * BLOCK * 2) : (word *)logits;
    for (i64 n = p->starts[row]; n < last; n += BLOCK) {
        Block b = block_of(p, n, last);
        i64 span = b.to - b.from;
        right_of(p->q + (head * N + n) * d, d, &b, d, rows, q);
        multiply(span, b.vectors * LANES, d, k.at + b.from * k.stride, k.stride, q, BLOCK, logits, BLOCK, 0);
        __m512 factor[2];
        for (int j = 0; j < b.vectors; j++) {
            float lse[LANES];
            factor[j] = weigh(logits + j * LANES, &b, j, base2(p->scale), weights + j * LANES, lse);
            i64 count = least(LANES, b.count - j * LANES);
            memcpy(p->lse + head * N + n + j * LANES, lse, (size_t)count * sizeof *lse);
        }
        multiply(d, b.vectors * LANES, span, vt + b.from, padded, weights, BLOCK, sums, BLOCK, 0);
        give(sums, d, &b, factor, turned, p->out + (n * H + head) * d, H * d);
    }
}

static void forward_group(const Problem *p, i64 row, i64 group, Arena a) {
    i64 padded = reach(p, row), at = row * p->row_stride + group * p->group_stride, shared = p->heads / p->groups;
    Rows k = rows_of(p, p->k + at, padded, &a);
    const elem *vt = turned_rows(rows_of(p, p->v + at, padded, &a), padded, p->width, &a);
    for (i64 head = group * shared; head < (group + 1) * shared; head++)
        forward_head(p, row, head, k, vt, padded, a);
}

/* ---- backward ---- */

typedef struct {
    Rows k, v;
    const elem *kt;        /* [d, padded] */
    float *grad_k, *grad_v; /* [padded, d] */
    i64 padded;
} Row;

/* What each query weighs, and the gradients of its logits, from the gradients of the weights: [keys, BLOCK] each;
   and the latter as words, [keys/PAIR, BLOCK]. */
static void weigh_back(const float *logits, const float *grads, const Block *b, __m512 c, const float *lse,
                       const float *along, elem *weights, elem *changes, word *pairs) {
    for (i64 i = 0; i < b->to - b->from; i += 2)
        for (int j = 0; j < 2; j++) {
            __m512 change[2];
            for (int o = 0; o < 2; o++) {
                i64 at = (i + o) * BLOCK + j * LANES;
                __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(logits + at), c, _mm512_loadu_ps(lse + j * LANES));
                __m512 w = _mm512_maskz_mov_ps(sees(b, j, b->from + i + o), exp2_of(x));
                __m512 less = _mm512_sub_ps(_mm512_loadu_ps(grads + at), _mm512_loadu_ps(along + j * LANES));
                change[o] = _mm512_mul_ps(w, less);
                store_elems(weights + at, w);
                store_elems(changes + at, change[o]);
            }
            if (BF16) store_pair(pairs + i / PAIR * BLOCK + j * LANES, BLOCK, change[0], change[1]);
        }
}

/* The last block of a row, which comes first, sees furthest: it writes where the others add. */
static void add_up(const Block *b, const elem *left, const word *right, i64 d, int fresh, float *sums) {
    if (fresh) memset(sums, 0, (size_t)(b->from * d * 4));
    multiply(b->to - b->from, d, BLOCK, left, BLOCK, right, d, sums + b->from * d, d, !fresh);
}

static void backward_head(const Problem *p, const Gradients *g, i64 row, i64 head, const Row *r, int fresh, Arena a) {
    i64 d = p->width, N = p->count, H = p->heads, padded = r->padded, last = p->starts[row + 1];
    elem *q = take(&a, BLOCK * d * (i64)sizeof(elem)), *grad = take(&a, BLOCK * d * (i64)sizeof(elem));
    word *right = take(&a, BLOCK * d * 4), *q_pairs = take(&a, BLOCK * d * 4), *grad_pairs = take(&a, BLOCK * d * 4);
    float *logits = take(&a, padded * BLOCK * 4), *grads = take(&a, padded * BLOCK * 4);
    elem *weights = take(&a, padded * BLOCK * (i64)sizeof(elem));
    elem *changes = take(&a, padded * BLOCK * (i64)sizeof(elem));
    word *pairs = BF16 ? take(&a, padded * BLOCK * 2) : (word *)changes;
    float *sums = take(&a, BLOCK * d * 4), *turned = take(&a, BLOCK * d * 4);
    __m512 factor[2] = {_mm512_set1_ps(p->scale), _mm512_set1_ps(p->scale)};
    i64 blocks = up(last - p->starts[row], BLOCK) / BLOCK;
    for (i64 n = p->starts[row] + (blocks - 1) * BLOCK; n >= p->starts[row]; n -= BLOCK, fresh = 0) {
        Block b = block_of(p, n, last);
        const elem *here = g->out + (n * H + head) * d, *out = p->out + (n * H + head) * d;
        right_of(p->q + (head * N + n) * d, d, &b, d, q, right);
        pair_rows(q, d, BLOCK, d, q_pairs);
        i64 span = b.to - b.from;
        multiply(span, BLOCK, d, r->k.at + b.from * r->k.stride, r->k.stride, right, BLOCK, logits, BLOCK, 0);
        right_of(here, H * d, &b, d, grad, right);
        pair_rows(grad, d, BLOCK, d, grad_pairs);
        multiply(span, BLOCK, d, r->v.at + b.from * r->v.stride, r->v.stride, right, BLOCK, grads, BLOCK, 0);
        /* Places left over have zeros for queries and gradients, and give none. */
        float lse[BLOCK] = {0}, along[BLOCK] = {0};
        for (i64 i = 0; i < b.count; i++) {
            lse[i] = p->lse[head * N + n + i];
            along[i] = dot(here + i * H * d, out + i * H * d, d);
        }
        weigh_back(logits, grads, &b, base2(p->scale), lse, along, weights, changes, pairs);
        add_up(&b, weights, grad_pairs, d, fresh, r->grad_v);
        add_up(&b, changes, q_pairs, d, fresh, r->grad_k);
        multiply(d, b.vectors * LANES, span, r->kt + b.from, padded, pairs, BLOCK, sums, BLOCK, 0);
        give(sums, d, &b, factor, turned, g->q + (head * N + n) * d, d);
    }
}

/* Sums times a factor to rows that may hold something already; keys that nobody sees have no gradient. */
static void give_rows(const float *x, i64 count, i64 keys, i64 d, float factor, int add, elem *y, i64 stride) {
    for (i64 r = 0; r < count; r++)
        for (i64 c = 0; c < d; c += LANES) {
            __m512 value = _mm512_mul_ps(_mm512_loadu_ps(x + r * d + c), _mm512_set1_ps(factor));
            if (add) value = _mm512_add_ps(value, load_elems(y + r * stride + c));
            store_elems(y + r * stride + c, value);
        }
    for (i64 r = count; r < keys && !add; r++) memset(y + r * stride, 0, (size_t)d * sizeof *y);
}

static void backward_group(const Problem *p, const Gradients *g, i64 row, i64 group, Arena a) {
    i64 d = p->width, padded = reach(p, row), seen = least(padded, p->keys), shared = p->heads / p->groups;
    i64 at = row * p->row_stride + group * p->group_stride, to = row * g->row_stride + group * g->group_stride;
    Row r = {.k = rows_of(p, p->k + at, padded, &a), .v = rows_of(p, p->v + at, padded, &a), .padded = padded};
    r.kt = turned_rows(r.k, padded, d, &a);
    r.grad_k = take(&a, padded * d * 4);
    r.grad_v = take(&a, padded * d * 4);
    for (i64 i = 0; i < shared; i++) backward_head(p, g, row, group * shared + i, &r, i == 0, a);
    give_rows(r.grad_k, seen, p->keys, d, p->scale, g->add, g->k + to, g->key_stride);
    give_rows(r.grad_v, seen, p->keys, d, 1.0f, g->add, g->v + to, g->key_stride);
}

/* ---- what Python calls ---- */

/* All rows and groups, shared out over threads; backward where there are gradients. 1 where there is no memory. */
static int run(const Problem *p, const Gradients *g, int threads) {
    i64 d = p->width, S = up(p->keys, BLOCK);
    i64 bytes = S * (d * 24 + BLOCK * 20) + BLOCK * d * 4 * 10 + 32 * LINE;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        char *memory = malloc((size_t)(bytes + LINE));
        if (!memory) {
#pragma omp atomic write
            failed = 1;
        }
        Arena a = {(char *)up((i64)memory, LINE)};
        set_tiles();
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < p->rows * p->groups; task++) {
            if (!memory) continue;
            if (g)
                backward_group(p, g, task / p->groups, task % p->groups, a);
            else
                forward_group(p, task / p->groups, task % p->groups, a);
        }
        release_tiles();
        free(memory);
    }
    return failed;
}

/* Fills out and lse. */
int forward(const Problem *p, int threads) { return run(p, 0, threads); }

/* Fills the gradients, from out's and what forward left. */
int backward(const Problem *p, const Gradients *g, int threads) { return run(p, g, threads); }

/* 0 if this process may use what the code was compiled for. */
int ready(void) {
#if TILES
    enum { REQUEST = 0x1023, DATA = 18 }; /* arch_prctl: ARCH_REQ_XCOMP_PERM, XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST, DATA) != 0;
#else
    return 0;
#endif
}
