/* What the kernels of simam.c walk over, and how they read and write it.

A panel is LANES channels of an image where channels lie innermost (channels-last), else one
channel, LANES positions to a row. The lanes of a row are computed together, and the sums of each
are kept apart: float over a chunk of ROWS rows, double over the panel, all added up in one order,
whatever the number of threads and the width of the processor's vectors. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16, ROWS = 64 };
/* rows from the one computed to the one that memory is asked for */
enum { AHEAD = 16 };
enum { FLOAT32, BFLOAT16, FLOAT16 };
/* numbers per image and channel: rows of `stats`, and from P0 on of `sums` */
enum { MEAN, A, YBAR, SQUARES, R0, R1, R2, R3, P0, P1, P2, P3, NUM_MAPS };

typedef float Lanes[LANES];

typedef struct {
    int64_t images, channels, positions, channels_last, type, threads;
    const void *x, *grad, *residual;
    void *out; /* y, or dx */
    float *stats, *sums;
    const float *mean, *variance, *gamma, *beta, *k0, *k1; /* of the norm; 0 where it has none */
    float e_lambda, eps, low, high;
} Job;

typedef struct {
    const Job *job;
    int64_t rows, last;            /* how many rows, and the lanes of the last one */
    int64_t start, step;           /* the first element in the map, and the next row's distance */
    int64_t index, channel, width; /* where in `stats` and among channels, and how many */
    Lanes maps[NUM_MAPS], scale, shift, centre, rstd, k0, k1;
    Lanes rate, near, twice, t, q; /* what the looks make of them */
    double sums[6][LANES];
} Panel;

typedef struct {
    float *at;
    int64_t step;
} Rows;

/* Ask memory for the row that is soon needed. */
#define ahead(rows, written) __builtin_prefetch((rows).at + AHEAD * (rows).step, written)

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline float widened(uint16_t half, int64_t type) {
    if (type == BFLOAT16) return float_of((uint32_t)half << 16);
    uint32_t sign = (half & 0x8000u) << 16, rest = (half & 0x7fffu) << 13;
    uint32_t bits = rest < 0x0f800000 ? bits_of(float_of(rest) * 0x1p112f) : rest | 0x7f800000;
    return float_of(bits | sign);
}

/* to the nearest, ties to even */
static inline uint16_t narrowed(float value, int64_t type) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (type == BFLOAT16)
        return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t half = (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
    half = rest < 0x38800000 ? bits_of(float_of(rest) + 0.5f) - bits_of(0.5f) : half;
    half = rest >= 0x477ff000 ? 0x7c00 : half;
    return sign | (value != value ? 0x7e00 : half);
}

static void place(Panel *p, const Job *job, int64_t image, int64_t group) {
    p->job = job;
    if (job->channels_last) {
        p->channel = group * LANES;
        p->start = image * job->channels * job->positions + p->channel;
        p->rows = job->positions;
        p->step = job->channels;
        p->width = job->channels - p->channel < LANES ? job->channels - p->channel : LANES;
        p->last = p->width;
    } else {
        p->channel = group;
        p->start = (image * job->channels + group) * job->positions;
        p->rows = (job->positions + LANES - 1) / LANES;
        p->step = LANES;
        p->width = 1;
        p->last = job->positions - (p->rows - 1) * LANES;
    }
    p->index = image * job->channels + p->channel;
}

/* How many rows the chunk from `row` on has. */
static inline int64_t chunk(const Panel *p, int64_t row) {
    return p->rows - row < ROWS ? p->rows - row : ROWS;
}

/* How many lanes of row `row` are in the map. */
static inline int64_t lanes_of(const Panel *p, int64_t row) {
    return p->job->channels_last || row + 1 == p->rows ? p->last : LANES;
}

/* Whether the chunk from `row` on can be computed where it lies. */
static inline int lies_well(const Panel *p, int64_t row) {
    return p->job->type == FLOAT32 && lanes_of(p, row + chunk(p, row) - 1) == LANES;
}

/* The chunk of `map` from `row` on, as it lies or in `room`, where lanes outside the map hold
`fill`, a value that adds nothing to any sum. */
static inline Rows fetch(const Panel *p, const void *map, int64_t row, const float *fill,
                         Lanes *room) {
    int64_t at = p->start + row * p->step, type = p->job->type;
    const float *floats = map;
    const uint16_t *halves = map;
    if (lies_well(p, row)) return (Rows){(float *)floats + at, p->step};
    for (int64_t i = 0; i < chunk(p, row); i++, at += p->step) {
        int64_t lanes = lanes_of(p, row + i);
        memcpy(room[i], fill, sizeof(Lanes));
        if (type != FLOAT32)
            for (int j = 0; j < lanes; j++) room[i][j] = widened(halves[at + j], type);
        else if (lanes == LANES)
            memcpy(room[i], floats + at, sizeof(Lanes));
        else
            for (int j = 0; j < lanes; j++) room[i][j] = floats[at + j];
    }
    return (Rows){room[0], LANES};
}

/* Where the chunk of the result from `row` on is to be written, for `put` to bring to the map. */
static inline Rows target(const Panel *p, int64_t row, Lanes *room) {
    if (!lies_well(p, row)) return (Rows){room[0], LANES};
    return (Rows){(float *)p->job->out + p->start + row * p->step, p->step};
}

static inline void put(const Panel *p, int64_t row, Lanes *room) {
    int64_t at = p->start + row * p->step, type = p->job->type;
    float *floats = p->job->out;
    uint16_t *halves = p->job->out;
    if (lies_well(p, row)) return;
    for (int64_t i = 0; i < chunk(p, row); i++, at += p->step) {
        int64_t lanes = lanes_of(p, row + i);
        if (type != FLOAT32)
            for (int j = 0; j < lanes; j++) halves[at + j] = narrowed(room[i][j], type);
        else if (lanes == LANES)
            memcpy(floats + at, room[i], sizeof(Lanes));
        else
            for (int j = 0; j < lanes; j++) floats[at + j] = room[i][j];
    }
}

/* A number of every channel to its lanes. */
static void spread(const Panel *p, const float *from, Lanes to) {
    float first = from[0];
    if (p->width == LANES)
        memcpy(to, from, sizeof(Lanes));
    else
        for (int j = 0; j < LANES; j++) to[j] = first;
    for (int j = 1; j < p->width && p->width < LANES; j++) to[j] = from[j];
}

static float *kept(const Panel *p, int which) {
    int64_t size = p->job->images * p->job->channels;
    float *from = which < P0 ? p->job->stats + which * size : p->job->sums + (which - P0) * size;
    return from + p->index;
}

static void load(Panel *p, int first, int last) {
    for (int k = first; k <= last; k++) spread(p, kept(p, k), p->maps[k]);
}

/* Keep numbers of `width` lanes, where they are wanted, and give them to all. */
static void save(Panel *p, int first, int last) {
    for (int k = first; k <= last; k++) {
        Lanes own;
        memcpy(own, p->maps[k], sizeof(Lanes));
        if (p->width < LANES) spread(p, own, p->maps[k]);
        if (k < P0 || p->job->sums) memcpy(kept(p, k), own, p->width * 4);
    }
}

/* A number of every channel, or `none` where the norm has none. */
static void load_channels(const Panel *p, const float *from, float none, Lanes to) {
    if (from)
        spread(p, from + p->channel, to);
    else
        for (int j = 0; j < LANES; j++) to[j] = none;
}

/* The norm as z = scale y + shift, and what its backward needs. */
static void load_norm(Panel *p) {
    const Job *job = p->job;
    load_channels(p, job->mean, 0, p->centre);
    load_channels(p, job->variance, 1 - job->eps, p->rstd);
    load_channels(p, job->gamma, 1, p->scale);
    load_channels(p, job->beta, 0, p->shift);
    load_channels(p, job->k0, 0, p->k0);
    load_channels(p, job->k1, 0, p->k1);
    for (int j = 0; j < LANES; j++) {
        p->rstd[j] = 1 / sqrtf(p->rstd[j] + job->eps);
        p->scale[j] *= p->rstd[j];
        p->shift[j] -= p->centre[j] * p->scale[j];
    }
}

/* Take the sums of a chunk into those of the panel; one channel's positions are added up. */
static inline void take(Panel *p, Lanes *part, int many) {
    for (int k = 0; k < many; k++) {
        const float *a = part[k], *b = a + 4, *c = a + 8, *d = a + 12;
        float four[4];
        for (int j = 0; j < 4; j++) four[j] = (a[j] + b[j]) + (c[j] + d[j]);
        if (p->job->channels_last)
            for (int j = 0; j < LANES; j++) p->sums[k][j] += a[j];
        else
            p->sums[k][0] += (four[0] + four[1]) + (four[2] + four[3]);
    }
}
