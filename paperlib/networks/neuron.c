/* The hard-reset LIF over the whole time axis, with the BatchNorm before it and the average pool behind it.

   Tensors lie in memory as (steps, samples, height, width, channels).  The current is x·scale + shift, per channel; x has
   one step only where the input does not change in time.  With pool = 2 spikes are averaged over 2×2 cells, and a last
   odd row or column is dropped.  Nothing but x is needed for backward: a row's membranes are computed again, in cache.

   A task is one row of the output: the `pool` rows of the input below it, which are one piece of memory at each step.
   What there is for each channel is repeated for each cell of a row, so that a loop runs over a whole row: maps of 8
   channels would leave loops over channels too short.

   Every operation is one IEEE addition, subtraction, multiplication, division or comparison in the order of fused.py, so
   that both give the same bits (compile with -ffp-contract=off); the order of sums is fixed, for any number of threads. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>
#define ALWAYS_INLINE inline __attribute__((always_inline))

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
    int64_t constant, even, pool, detach; /* x, grad_spikes have one step; 1 or 2; the reset has no gradient */
    double tau, threshold, fires, gamma; /* a spike where m >= fires; γ of the triangle */
} Layer;

/* BatchNorm, each of (channels): the affine map it amounts to, the mean, and 1/√(variance + ε). */
typedef struct {
    const real *scale, *shift, *mean, *inverse;
    int64_t batch; /* mean and variance are those of x, which then has a gradient through them */
} Norm;

/* A thread's own memory: rows of the cells of one task, and at the end the membranes of all steps. */
typedef struct {
    real *scale, *shift, *mean, *current, *kept, *grad, *total, *sum, *dot, *membrane;
} Rows;

static int64_t heights(const Layer *n) { return n->height / n->pool; } /* of the output */
static int64_t tasks(const Layer *n) { return n->samples * heights(n); }
static int64_t cells(const Layer *n) { return n->width * n->channels; } /* of one input row */
static int64_t pooled(const Layer *n) { return n->width / n->pool * n->channels; } /* of one output row */

static int64_t input_row(const Layer *n, int64_t t, int64_t task) {
    int64_t sample = task / heights(n), height = task % heights(n) * n->pool;
    return (((n->constant ? 0 : t) * n->samples + sample) * n->height + height) * cells(n);
}

static int64_t output_row(const Layer *n, int64_t t, int64_t task) { return (t * tasks(n) + task) * pooled(n); }

static void repeat(const real *values, int64_t channels, int64_t count, real *row) {
    for (int64_t j = 0; j < count; j += channels) memcpy(row + j, values, sizeof(real) * channels);
}

/* The distance between rows: each begins with a line of the cache, which makes loops a third faster. */
static int64_t stride(const Layer *n) { return (n->pool * cells(n) + 15) / 16 * 16; }

/* Rows for this thread, with scale, shift and mean in place; NULLs where memory is short. */
static Rows rows(const Layer *n, const Norm *norm) {
    const int64_t S = stride(n), R = n->pool * cells(n);
    real *m = aligned_alloc(64, sizeof(real) * (9 + n->steps) * S);
    if (!m) return (Rows){0};
    repeat(norm->scale, n->channels, R, m);
    repeat(norm->shift, n->channels, R, m + S);
    repeat(norm->mean, n->channels, R, m + 2 * S);
    return (Rows){m, m + S, m + 2 * S, m + 3 * S, m + 4 * S, m + 5 * S, m + 6 * S, m + 7 * S, m + 8 * S, m + 9 * S};
}

/* m[t] = τ·v[t-1] + x[t]·scale + shift and v[t] = (1 - s[t])·m[t]. */
static void integrate(const Layer *n, const number *x, int64_t task, const Rows *r) {
    const real tau = n->tau, fires = n->fires;
    const int64_t R = n->pool * cells(n);
    const real *restrict scale = r->scale, *restrict shift = r->shift;
    real *restrict current = r->current, *restrict v = r->kept;
    memset(v, 0, sizeof(real) * R);
    for (int64_t t = 0; t < n->steps; t++) {
        const number *restrict in = x + input_row(n, t, task);
        real *restrict m = r->membrane + t * stride(n);
        if (t == 0 || !n->constant)
            for (int64_t j = 0; j < R; j++) current[j] = load(in[j]) * scale[j] + shift[j];
        for (int64_t j = 0; j < R; j++) {
            m[j] = v[j] * tau + current[j];
            v[j] = m[j] >= fires ? 0 : m[j];
        }
    }
}

/* The last argument of the next two functions is the number of channels, a constant where it is small: the compiler
   cannot make anything of a loop that is short and of unknown length. */
static ALWAYS_INLINE void means(const Layer *n, const real *restrict count, number *restrict s, const int64_t C) {
    for (int64_t w = 0; w < n->width / 2; w++)
        for (int64_t c = 0; c < C; c++)
            s[w * C + c] = store((count[2 * w * C + c] + count[(2 * w + 1) * C + c]) * (real)0.25);
}

static ALWAYS_INLINE void twice(const Layer *n, const number *restrict grad_spikes, real *restrict grad, const int64_t C) {
    for (int64_t w = 0; w < n->width / 2; w++)
        for (int64_t c = 0; c < C; c++)
            grad[2 * w * C + c] = grad[(2 * w + 1) * C + c] = load(grad_spikes[w * C + c]) * (real)0.25;
}

static void forward_task(const Layer *n, const number *x, number *spikes, int64_t task, const Rows *r) {
    const real fires = n->fires;
    const int64_t R = n->pool * cells(n), W = cells(n), C = n->channels;
    real *restrict count = r->current;
    integrate(n, x, task, r);
    for (int64_t t = 0; t < n->steps; t++) {
        number *restrict s = spikes + output_row(n, t, task);
        const real *restrict m = r->membrane + t * stride(n);
        if (n->pool == 1) {
            for (int64_t j = 0; j < R; j++) s[j] = store(m[j] >= fires ? 1 : 0);
            continue;
        }
        for (int64_t j = 0; j < W; j++) count[j] = (real)(m[j] >= fires ? 1 : 0) + (m[j + W] >= fires ? 1 : 0);
        if (C == 8) means(n, count, s, 8);
        else if (C == 16) means(n, count, s, 16);
        else means(n, count, s, C);
    }
}

/* The gradient of the spikes of one step, spread over the cells of the pool; 0 in a column that is dropped. */
static void spread(const Layer *n, const number *restrict grad_spikes, real *restrict grad) {
    const int64_t W = cells(n), C = n->channels;
    if (n->pool == 1) {
        for (int64_t j = 0; j < W; j++) grad[j] = load(grad_spikes[j]);
        return;
    }
    if (C == 8) twice(n, grad_spikes, grad, 8);
    else if (C == 16) twice(n, grad_spikes, grad, 16);
    else twice(n, grad_spikes, grad, C);
    memset(grad + n->width / 2 * 2 * C, 0, sizeof(real) * (n->width % 2 * C));
    memcpy(grad + W, grad, sizeof(real) * W);
}

/* To `sums` the sums over the pixels of a row of `sum` and of `dot`, one pixel after another. */
static ALWAYS_INLINE void by_channel(const real *restrict sum, const real *restrict dot, int64_t length,
                                     double *restrict sums, const int64_t C) {
    double both[2 * C];
    for (int64_t c = 0; c < 2 * C; c++) both[c] = 0;
    for (int64_t j = 0; j < length; j += C)
        for (int64_t c = 0; c < C; c++) {
            both[c] += sum[j + c];
            both[c + C] += dot[j + c];
        }
    memcpy(sums, both, sizeof both);
}

static void by_channels(const Layer *n, const real *sum, const real *dot, int64_t length, double *sums) {
    if (n->channels == 8) by_channel(sum, dot, length, sums, 8);
    else if (n->channels == 16) by_channel(sum, dot, length, sums, 16);
    else by_channel(sum, dot, length, sums, n->channels);
}

/* Adds the other groups of `size` numbers to the first, one after another. */
static void add_up(double *sums, int64_t count, int64_t size) {
    for (int64_t k = 1; k < count; k++)
        for (int64_t c = 0; c < size; c++) sums[c] += sums[k * size + c];
}

/* Writes scale times the gradient of the current, and to `sums`, unless NULL, for each channel the sums over the task of
   that gradient and of its product with x - mean. */
static void backward_task(const Layer *n, const number *x, const number *grad_spikes, number *grad_x, double *sums,
                          int64_t task, const Rows *r) {
    const real tau = n->tau, threshold = n->threshold, fires = n->fires;
    const real gamma = n->gamma, height = 1 / (n->gamma * n->gamma);
    const int64_t R = n->pool * cells(n), C = n->channels;
    const real *restrict scale = r->scale, *restrict mean = r->mean, *restrict grad = r->grad;
    real *restrict v = r->kept, *restrict total = r->total, *restrict sum = r->sum, *restrict dot = r->dot;
    integrate(n, x, task, r);
    memset(v, 0, sizeof(real) * R); /* now the gradient of v[t] */
    memset(sum, 0, sizeof(real) * R);
    memset(dot, 0, sizeof(real) * R);
    for (int64_t t = n->steps - 1; t >= 0; t--) {
        const real *restrict m = r->membrane + t * stride(n);
        const number *restrict in = x + input_row(n, t, task);
        number *restrict out = grad_x + input_row(n, t, task);
        if (t == n->steps - 1 || !n->even) spread(n, grad_spikes + output_row(n, n->even ? 0 : t, task), r->grad);
        for (int64_t j = 0; j < R; j++) {
            real slope = gamma - fabs(m[j] - threshold), reset = n->detach ? 0 : v[j] * m[j];
            slope = (slope < 0 ? 0 : slope) * height;
            real gradient = (m[j] >= fires ? 0 : v[j]) + slope * (grad[j] - reset);
            v[j] = gradient * tau;
            sum[j] += gradient;
            total[j] = gradient;
        }
        if (n->constant) continue; /* the sum over time is the gradient of x */
        for (int64_t j = 0; j < R; j++) out[j] = store(total[j] * scale[j]);
        if (sums)
            for (int64_t j = 0; j < R; j++) dot[j] += total[j] * (load(in[j]) - mean[j]);
    }
    if (n->constant) {
        const number *restrict in = x + input_row(n, 0, task);
        number *restrict out = grad_x + input_row(n, 0, task);
        for (int64_t j = 0; j < R; j++) out[j] = store(sum[j] * scale[j]);
        if (sums)
            for (int64_t j = 0; j < R; j++) dot[j] = sum[j] * (load(in[j]) - mean[j]);
    }
    if (sums) by_channels(n, sum, dot, R, sums + task * 2 * C);
}

/* The gradients of weight and bias; the sums over all tasks take the place of those of the first. */
static void totals(const Layer *n, const Norm *norm, double *sums, real *grad_weight, real *grad_bias) {
    const int64_t C = n->channels;
    add_up(sums, tasks(n), 2 * C);
    for (int64_t c = 0; c < C; c++) {
        grad_weight[c] = sums[c + C] * norm->inverse[c];
        grad_bias[c] = sums[c];
    }
}

/* Rows of what the gradient through mean and variance subtracts from that of x: level + tilt·(x - mean). */
static void level_and_tilt(const Layer *n, const Norm *norm, const double *sums, const Rows *r) {
    const int64_t C = n->channels, count = (n->constant ? 1 : n->steps) * n->samples * n->height * n->width;
    for (int64_t c = 0; c < C; c++) {
        r->grad[c] = norm->scale[c] * (sums[c] / count);
        r->total[c] = norm->scale[c] * (sums[c + C] * norm->inverse[c] * norm->inverse[c] / count);
    }
    repeat(r->grad, C, cells(n), r->sum);
    repeat(r->total, C, cells(n), r->dot);
}

/* For each channel of one map (height, width, channels) the sums of x - first and of its square: the rows are added up in
   the precision of membranes, then the pixels in 64 bits. */
static void map_sums(const Layer *n, const number *x, int64_t map, const Rows *r, double *sums) {
    const int64_t W = cells(n), C = n->channels;
    const real *restrict first = r->mean;
    real *restrict sum = r->sum, *restrict dot = r->dot;
    memset(sum, 0, sizeof(real) * W);
    memset(dot, 0, sizeof(real) * W);
    for (int64_t h = 0; h < n->height; h++) {
        const number *restrict in = x + (map * n->height + h) * W;
        for (int64_t j = 0; j < W; j++) {
            real centred = load(in[j]) - first[j];
            sum[j] += centred;
            dot[j] += centred * centred;
        }
    }
    by_channels(n, sum, dot, W, sums + map * 2 * C);
}

/* Mean and variance (over N, not N - 1) of each channel of x.  `norm` has the first pixel of x as its mean, so that no
   digits are lost where the mean is large.  Like `forward` and `backward`, returns 1 where memory is short, else 0. */
int statistics(const Layer *n, const Norm *norm, const number *x, real *mean, real *var, int threads) {
    const int64_t C = n->channels, maps = n->steps * n->samples, count = maps * n->height * n->width;
    double *sums = malloc(sizeof(double) * 2 * C * maps);
    int failed = !sums;
    if (failed) return 1;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Rows r = rows(n, norm);
        failed = !r.scale;
#pragma omp for
        for (int64_t k = 0; k < maps; k++) /* backwards: the last of x are still in cache */
            if (r.scale) map_sums(n, x, maps - 1 - k, &r, sums);
        free(r.scale);
    }
    add_up(sums, maps, 2 * C);
    for (int64_t c = 0; c < C; c++) {
        double off = sums[c] / count, square = sums[c + C] / count - off * off;
        mean[c] = norm->mean[c] + off;
        var[c] = square < 0 ? 0 : square;
    }
    free(sums);
    return failed;
}

/* Spikes, or their means over 2×2 cells. */
int forward(const Layer *n, const Norm *norm, const number *x, number *spikes, int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Rows r = rows(n, norm);
        failed = !r.scale;
#pragma omp for
        for (int64_t task = 0; task < tasks(n); task++)
            if (r.scale) forward_task(n, x, spikes, task, &r);
        free(r.scale);
    }
    return failed;
}

/* The gradient of x from that of the spikes, and those of weight and bias, unless `grad_weight` is NULL. */
int backward(const Layer *n, const Norm *norm, const number *x, const number *grad_spikes, number *grad_x,
             real *grad_weight, real *grad_bias, int threads) {
    const int64_t W = cells(n), steps = n->constant ? 1 : n->steps;
    double *sums = grad_weight ? malloc(sizeof(double) * 2 * n->channels * tasks(n)) : NULL;
    int failed = grad_weight && !sums;
    if (failed) return 1;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Rows r = rows(n, norm);
        failed = !r.scale;
#pragma omp for
        for (int64_t task = 0; task < tasks(n); task++)
            if (r.scale) backward_task(n, x, grad_spikes, grad_x, sums, task, &r);
        if (sums) {
#pragma omp single
            totals(n, norm, sums, grad_weight, grad_bias);
            if (norm->batch && r.scale) level_and_tilt(n, norm, sums, &r);
        }
        const real *restrict mean = r.mean, *restrict level = r.sum, *restrict tilt = r.dot;
#pragma omp for
        for (int64_t k = 0; k < (norm->batch ? n->samples : 0); k++) /* backwards: the last are still in cache */
            for (int64_t line = 0; r.scale && line < steps * n->height; line++) {
                const int64_t sample = n->samples - 1 - k;
                const int64_t from = ((line / n->height * n->samples + sample) * n->height + line % n->height) * W;
                const number *restrict in = x + from;
                number *restrict out = grad_x + from;
                for (int64_t j = 0; j < W; j++)
                    out[j] = store(load(out[j]) - (level[j] + tilt[j] * (load(in[j]) - mean[j])));
            }
        free(r.scale);
    }
    free(sums);
    return failed;
}
