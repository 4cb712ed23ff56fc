/* The hard-reset LIF over the whole time axis, with the BatchNorm before it and the average pool behind it.

   Tensors lie in memory as (steps, samples, height, width, channels).  The current is x·scale + shift, per channel; x has
   one step only where the input does not change in time.  With pool = 2 spikes are averaged over 2×2 cells, and a last
   odd row or column is dropped.  Nothing but x is needed for backward: a row's membranes are computed again, in cache.

   Every operation is one IEEE addition, multiplication or comparison in the order of fused.py, so that both give the same
   bits (compile with -ffp-contract=off). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(BFLOAT16) /* kept in 16 bits, computed in 32 */
typedef uint16_t number;
typedef float real;
static inline real load(number x) {
    uint32_t bits = (uint32_t)x << 16;
    real value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline number store(real value) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (number)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
typedef REAL real;
typedef real number;
static inline real load(number x) { return x; }
static inline number store(real value) { return value; }
#endif

typedef struct {
    int64_t steps, samples, height, width, channels;
    int64_t constant, pool, detach; /* x has one step; 1 or 2; the reset has no gradient */
    double tau, threshold, fires, gamma; /* a spike where m >= fires; γ of the triangle */
} Layer;

/* Rows of the output: one for each sample and (pooled) height. */
static int64_t heights(const Layer *n) { return n->height / n->pool; }
static int64_t cells(const Layer *n) { return n->width * n->channels; } /* of one input row */

static int64_t input_row(const Layer *n, int64_t t, int64_t row, int64_t i) {
    int64_t sample = row / heights(n), height = row % heights(n) * n->pool + i;
    return (((n->constant ? 0 : t) * n->samples + sample) * n->height + height) * cells(n);
}

static int64_t output_row(const Layer *n, int64_t t, int64_t row) {
    return (t * n->samples * heights(n) + row) * (n->width / n->pool * n->channels);
}

/* m[t] = τ·v[t-1] + x[t]·scale + shift and v[t] = (1 - s[t])·m[t], for the input rows of one output row. */
static void integrate(const Layer *n, const number *restrict x, const real *restrict scale, const real *restrict shift,
                      int64_t row, real *restrict membrane, real *restrict kept) {
    const real tau = n->tau, fires = n->fires;
    memset(kept, 0, sizeof(real) * n->pool * cells(n));
    for (int64_t t = 0; t < n->steps; t++)
        for (int64_t i = 0; i < n->pool; i++) {
            const number *in = x + input_row(n, t, row, i);
            real *m = membrane + (t * n->pool + i) * cells(n), *v = kept + i * cells(n);
            for (int64_t w = 0; w < n->width; w++, in += n->channels, m += n->channels, v += n->channels)
                for (int64_t c = 0; c < n->channels; c++) {
                    m[c] = v[c] * tau + (load(in[c]) * scale[c] + shift[c]);
                    v[c] = m[c] >= fires ? 0 : m[c];
                }
        }
}

/* What is done to one row of the output; `grad_spikes` is read by backward alone, `membrane` is a thread's own memory. */
typedef void Task(const Layer *n, const number *x, const real *scale, const real *shift, const number *grad_spikes,
                  number *out, int64_t row, real *membrane);

static void forward_row(const Layer *n, const number *x, const real *scale, const real *shift,
                        const number *grad_spikes, number *spikes, int64_t row, real *membrane) {
    (void)grad_spikes;
    const real fires = n->fires;
    const int64_t row_cells = n->pool * cells(n), C = n->channels;
    integrate(n, x, scale, shift, row, membrane, membrane + n->steps * row_cells);
    for (int64_t t = 0; t < n->steps; t++) {
        number *restrict s = spikes + output_row(n, t, row);
        const real *restrict m = membrane + t * row_cells;
        if (n->pool == 1)
            for (int64_t j = 0; j < row_cells; j++) s[j] = store(m[j] >= fires ? 1 : 0);
        else
            for (int64_t w = 0; w < n->width / 2; w++, s += C, m += 2 * C) {
                const real *restrict below = m + cells(n);
                for (int64_t c = 0; c < C; c++) {
                    real above = (m[c] >= fires ? 1 : 0) + (m[c + C] >= fires ? 1 : 0);
                    s[c] = store((above + (below[c] >= fires ? 1 : 0) + (below[c + C] >= fires ? 1 : 0)) * (real)0.25);
                }
            }
    }
}

static void backward_row(const Layer *n, const number *x, const real *scale, const real *shift,
                         const number *grad_spikes, number *grad_current, int64_t row, real *membrane) {
    const real tau = n->tau, threshold = n->threshold, fires = n->fires;
    const real gamma = n->gamma, height = 1 / (n->gamma * n->gamma), attached = n->detach ? 0 : 1;
    const int64_t row_cells = n->pool * cells(n), C = n->channels;
    real *kept = membrane + n->steps * row_cells, *sum = kept + row_cells; /* gradients of v[t], and over time */
    integrate(n, x, scale, shift, row, membrane, kept);
    memset(kept, 0, sizeof(real) * 2 * row_cells);
    for (int64_t t = n->steps - 1; t >= 0; t--)
        for (int64_t i = 0; i < n->pool; i++) {
            const int64_t from = i * cells(n);
            const number *restrict g = grad_spikes + output_row(n, t, row);
            const real *restrict m = membrane + t * row_cells + from;
            real *restrict v = kept + from, *restrict s = sum + from;
            number *restrict out = grad_current + input_row(n, t, row, i);
            for (int64_t w = 0; w < n->width; w++, m += C, v += C, s += C, out += C) {
                if (n->pool == 2 && w == n->width / 2 * 2) g = NULL; /* the column that is dropped */
                for (int64_t c = 0; c < C; c++) {
                    real u = m[c] - threshold, slope = gamma - (u < 0 ? -u : u);
                    slope = (slope < 0 ? 0 : slope) * height;
                    real grad = g ? (n->pool == 2 ? load(g[c]) * (real)0.25 : load(g[c])) : 0;
                    real total = (m[c] >= fires ? 0 : v[c]) + slope * (grad - attached * v[c] * m[c]);
                    v[c] = total * tau;
                    s[c] += total;
                    if (!n->constant) out[c] = store(total);
                }
                if (n->pool == 1 || w % 2) g += C;
            }
        }
    for (int64_t i = 0; n->constant && i < n->pool; i++)
        for (int64_t j = 0; j < cells(n); j++)
            grad_current[input_row(n, 0, row, i) + j] = store(sum[i * cells(n) + j]);
}

/* Every row of the output, shared out over the threads.  Returns 1 where memory is short, else 0. */
static int all_rows(Task *task, const Layer *n, const number *x, const real *scale, const real *shift,
                    const number *grad_spikes, number *out, int threads) {
    const int64_t rows = n->samples * heights(n);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *membrane = malloc(sizeof(real) * (n->steps + 2) * n->pool * cells(n)); /* every step, and two rows more */
        failed = !membrane;
#pragma omp for
        for (int64_t row = 0; row < rows; row++)
            if (membrane) task(n, x, scale, shift, grad_spikes, out, row, membrane);
        free(membrane);
    }
    return failed;
}

/* Spikes, or their means over 2×2 cells. */
int forward(const Layer *n, const number *x, const real *scale, const real *shift, number *spikes, int threads) {
    return all_rows(forward_row, n, x, scale, shift, NULL, spikes, threads);
}

/* The gradient of the current, shaped as x, from that of the spikes. */
int backward(const Layer *n, const number *x, const real *scale, const real *shift, const number *grad_spikes,
             number *grad_current, int threads) {
    return all_rows(backward_row, n, x, scale, shift, grad_spikes, grad_current, threads);
}
