/* SimAM on the CPU, alone or with a batch norm and an activation behind it, in float32 arithmetic.

fused.py holds the mathematics, and names the variables used here; panel.h says how a map is walked
over. A step is done for a few panels side by side, chunk by chunk, and the next step finds them in
cache.

No fast-math: a NaN and an infinity stay what they are, as training's check of the loss needs. */

#include "panel.h"

#define LOG2E 1.44269504f
/* panels side by side: two lines of cache, which memory brings as a pair */
enum { WIDE = 2 };

float farthest = -125; /* no constant, or GCC would make two branches of the one below */

/* 1 / sigmoid(u) for t = -u log2(e) <= 0: 1 + 2^t, by the whole part of t and a polynomial */
static inline float inverse(float t) {
    const float round = 0x1.8p23f + 127; /* what is added to it loses its fraction */
    t = t < farthest ? farthest : t;     /* a NaN stays one */
    float whole = t + round, part = t - (whole - round);
    float p = 1.32647261e-3f; /* minimax on [-1/2, 1/2], error 1e-7 */
    p = p * part + 9.67151299e-3f;
    p = p * part + 5.55073358e-2f;
    p = p * part + 0.240222424f;
    p = p * part + 0.693147004f;
    p = p * part + 1;
    return 1 + p * float_of(bits_of(whole) << 23);
}

/* The mean of the first chunk, near enough to that of all for the squares not to cancel. */
static void begin_measure(Panel *p) {
    Lanes room[ROWS], part[1] = {0};
    Rows x = fetch(p, p->job->x, 0, part[0], room);
    int64_t rows = chunk(p, 0), count = (rows - 1) * LANES + lanes_of(p, rows - 1);
    for (int64_t i = 0; i < rows; i++, x.at += x.step)
        for (int j = 0; j < LANES; j++) part[0][j] += x.at[j];
    take(p, part, 1);
    for (int j = 0; j < p->width; j++) {
        part[0][j] = p->sums[0][j] / (p->job->channels_last ? rows : count);
        p->sums[0][j] = 0;
    }
    spread(p, part[0], p->near);
}

static void measure(Panel *p, int64_t row) {
    Lanes room[ROWS], part[2] = {0};
    Rows x = fetch(p, p->job->x, row, p->near, room);
    for (int64_t i = 0; i < chunk(p, row); i++, x.at += x.step) {
        ahead(x, 0);
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            float d = x.at[j] - p->near[j];
            part[0][j] += d;
            part[1][j] += d * d;
        }
    }
    take(p, part, 2);
}

static void end_measure(Panel *p) {
    double m = p->job->positions, n = m > 1 ? m - 1 : 1;
    for (int j = 0; j < p->width; j++) {
        double shift = p->sums[0][j] / m, v = (p->sums[1][j] - shift * p->sums[0][j]) / n;
        p->maps[MEAN][j] = p->near[j] + shift;
        p->maps[A][j] = 1 / (4 * (v + p->job->e_lambda));
    }
    save(p, MEAN, A);
}

/* What every look at y needs. */
static void focus(Panel *p) {
    for (int j = 0; j < LANES; j++) p->rate[j] = p->maps[A][j] * -LOG2E;
}

static inline float attention(float rate, float d) {
    return 1 / inverse(rate * (d * d) - LOG2E / 2);
}

static void begin_moments(Panel *p) {
    focus(p);
    for (int j = 0; j < LANES; j++) p->near[j] = p->maps[MEAN][j] * attention(0, 0);
}

static void moments(Panel *p, int64_t row) {
    const float *mean = p->maps[MEAN], *rate = p->rate, *near = p->near;
    Lanes room[ROWS], part[6] = {0};
    Rows x = fetch(p, p->job->x, row, mean, room);
    for (int64_t i = 0; i < chunk(p, row); i++, x.at += x.step) {
        ahead(x, 0);
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            float v = x.at[j], d = v - mean[j], s = attention(rate[j], d), y = v * s;
            float e = y - near[j], w = (y - y * s) * d, wd = w * d;
            part[0][j] += e;
            part[1][j] += e * e;
            part[2][j] += w;
            part[3][j] += e * w;
            part[4][j] += wd;
            part[5][j] += e * wd;
        }
    }
    take(p, part, 6);
}

static void end_moments(Panel *p) {
    for (int j = 0; j < p->width; j++) {
        double shift = p->sums[0][j] / p->job->positions;
        p->maps[YBAR][j] = p->near[j] + shift;
        p->maps[SQUARES][j] = p->sums[1][j] - shift * p->sums[0][j];
        p->maps[R0][j] = p->sums[2][j];
        p->maps[R1][j] = p->sums[3][j] - shift * p->sums[2][j];
        p->maps[R2][j] = p->sums[4][j];
        p->maps[R3][j] = p->sums[5][j] - shift * p->sums[4][j];
    }
    save(p, YBAR, R3);
}

static void apply(Panel *p, int64_t row) {
    const float *mean = p->maps[MEAN], *rate = p->rate, *scale = p->scale, *shift = p->shift;
    const float low = p->job->low, high = p->job->high;
    Lanes room[ROWS], more[ROWS], result[ROWS], zero = {0};
    Rows x = fetch(p, p->job->x, row, mean, room), out = target(p, row, result), rest = {zero, 0};
    if (p->job->residual) rest = fetch(p, p->job->residual, row, zero, more);
    for (int64_t i = 0; i < chunk(p, row); i++) {
        ahead(x, 0), ahead(out, 1);
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            float v = x.at[j], y = v * attention(rate[j], v - mean[j]);
            float z = scale[j] * y + shift[j] + rest.at[j];
            z = z < low ? low : z;
            out.at[j] = z > high ? high : z;
        }
        x.at += x.step, rest.at += rest.step, out.at += out.step;
    }
    put(p, row, result);
}

/* The gradient g of act(z), where it passes the activation. */
static inline float passed(float g, float z, float low, float high) {
    g = z <= low ? 0 : g;
    return z >= high ? 0 : g;
}

static void sums(Panel *p, int64_t row) {
    const float *mean = p->maps[MEAN], *rate = p->rate, *scale = p->scale, *shift = p->shift;
    const float *centre = p->centre, low = p->job->low, high = p->job->high;
    Lanes room[ROWS], more[ROWS], zero = {0}, part[4] = {0};
    Rows x = fetch(p, p->job->x, row, mean, room), g = fetch(p, p->job->grad, row, zero, more);
    for (int64_t i = 0; i < chunk(p, row); i++, x.at += x.step, g.at += g.step) {
        ahead(x, 0), ahead(g, 0);
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            float v = x.at[j], d = v - mean[j], s = attention(rate[j], d), y = v * s;
            float gz = passed(g.at[j], scale[j] * y + shift[j], low, high);
            float gw = gz * ((y - y * s) * d);
            part[0][j] += gz;
            part[1][j] += gz * (y - centre[j]);
            part[2][j] += gw;
            part[3][j] += gw * d;
        }
    }
    take(p, part, 4);
}

static void end_sums(Panel *p) {
    for (int j = 0; j < p->width; j++) {
        p->maps[P0][j] = p->sums[0][j];
        p->maps[P1][j] = p->sums[1][j] * p->rstd[j];
        p->maps[P2][j] = p->sums[2][j];
        p->maps[P3][j] = p->sums[3][j];
    }
    save(p, P0, P3);
}

static void begin_slopes(Panel *p) {
    float m = p->job->positions, n = m > 1 ? m - 1 : 1;
    Lanes *maps = p->maps;
    focus(p);
    for (int j = 0; j < LANES; j++) {
        float k0 = p->k0[j], k1 = p->k1[j] * p->rstd[j], t = maps[P2][j], q = maps[P3][j];
        if (p->job->k0) {
            float apart = maps[YBAR][j] - p->centre[j];
            t -= k0 * maps[R0][j] + k1 * (maps[R1][j] + apart * maps[R0][j]);
            q -= k0 * maps[R2][j] + k1 * (maps[R3][j] + apart * maps[R2][j]);
        }
        p->twice[j] = 2 * maps[A][j];
        p->t[j] = p->scale[j] * p->twice[j] * t / m;
        p->q[j] = p->scale[j] * p->twice[j] * p->twice[j] * 2 * q / n;
        p->k0[j] = p->scale[j] * k0;
        p->k1[j] = p->scale[j] * k1;
    }
}

static void slopes(Panel *p, int64_t row) {
    const float *mean = p->maps[MEAN], *rate = p->rate, *scale = p->scale, *shift = p->shift;
    const float *centre = p->centre, low = p->job->low, high = p->job->high;
    Lanes room[ROWS], more[ROWS], result[ROWS], zero = {0};
    Rows x = fetch(p, p->job->x, row, mean, room), g = fetch(p, p->job->grad, row, zero, more);
    Rows out = target(p, row, result);
    for (int64_t i = 0; i < chunk(p, row); i++) {
        ahead(x, 0), ahead(g, 0), ahead(out, 1);
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            float v = x.at[j], d = v - mean[j], s = attention(rate[j], d), y = v * s;
            float gz = passed(g.at[j], scale[j] * y + shift[j], low, high);
            float gy = scale[j] * gz - p->k0[j] - p->k1[j] * (y - centre[j]);
            float gw = gy * ((y - y * s) * d);
            out.at[j] = gy * s + (p->twice[j] * gw - p->t[j] - p->q[j] * d);
        }
        x.at += x.step, g.at += g.step, out.at += out.step;
    }
    put(p, row, result);
}

/* The steps of a walk, done in this order while the panels are in cache; `steps` has a bit each. */
static const struct {
    void (*begin)(Panel *), (*look)(Panel *, int64_t), (*end)(Panel *);
} STEPS[] = {
    {begin_measure, measure, end_measure},
    {begin_moments, moments, end_moments},
    {focus, apply, 0},
    {focus, sums, end_sums},
    {begin_slopes, slopes, 0},
};

/* Walk over `many` panels of an image, side by side where a row of theirs is. */
static void walk(Panel *panels, int64_t many, int64_t steps) {
    for (int k = 0; k < 5; k++) {
        if (!(steps >> k & 1)) continue;
        for (int64_t i = 0; i < many; i++) {
            if (STEPS[k].end) memset(panels[i].sums, 0, sizeof panels[i].sums);
            STEPS[k].begin(&panels[i]);
        }
        for (int64_t row = 0; row < panels[0].rows; row += ROWS)
            for (int64_t i = 0; i < many; i++) STEPS[k].look(&panels[i], row);
        for (int64_t i = 0; i < many && STEPS[k].end; i++) STEPS[k].end(&panels[i]);
    }
}

/* Walk over all maps with the given steps. */
void simam_walk(const Job *job, int64_t steps) {
    int64_t groups = job->channels_last ? (job->channels + LANES - 1) / LANES : job->channels;
    int64_t blocks = (groups + WIDE - 1) / WIDE;
#pragma omp parallel for schedule(static) num_threads(job->threads)
    for (int64_t number = 0; number < job->images * blocks; number++) {
        Panel panels[WIDE];
        int64_t first = number % blocks * WIDE, left = groups - first;
        int64_t many = left < WIDE ? left : WIDE;
        for (int64_t i = 0; i < many; i++) {
            place(&panels[i], job, number / blocks, first + i);
            if (!(steps & 1)) load(&panels[i], MEAN, A);
            if (steps == 16) load(&panels[i], YBAR, P3);
            if (steps & ~3) load_norm(&panels[i]);
        }
        walk(panels, many, steps);
    }
}
