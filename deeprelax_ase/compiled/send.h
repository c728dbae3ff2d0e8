/* What the edges of an atom send, some channels at once, which stay in the registers meanwhile.
 *
 * Included by layers.c for each width of LANES; NAME gives the functions of each their own names.
 */
INLINE LANES NAME(load)(const float* x) {
    LANES lanes;
    memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

INLINE void NAME(store)(float* x, LANES lanes) { memcpy(x, &lanes, sizeof lanes); }

/* Scalars and vectors of channels from `c` on that lead to atom `i`. */
INLINE void NAME(send_vectors)(const Group* g, int i, int c, int F, int width, int stride,
                               size_t offset) {
    size_t plane = (size_t)g->atoms * F;
    float *s = g->scalars + (size_t)i * F + c, *v = g->new_vectors + (size_t)i * F + c;
    const float* own = g->vectors + (size_t)i * F + c;
    LANES sum = NAME(load)(s), x = NAME(load)(own), y = NAME(load)(own + plane),
          z = NAME(load)(own + 2 * plane);
    for (const Edge *edge = g->edges + g->start[i], *end = g->edges + g->start[i + 1]; edge < end;
         edge++) {
        const float* f = g->filters + (size_t)edge->pair * stride + offset + c;
        const float* sent = g->source + (size_t)edge->source * width + c;
        const float* w = g->vectors + (size_t)edge->source * F + c;
        LANES along = NAME(load)(sent) * NAME(load)(f) * edge->envelope;
        LANES outward = NAME(load)(sent + F) * NAME(load)(f + F) * edge->envelope;
        sum += NAME(load)(sent + 2 * F) * NAME(load)(f + 2 * F) * edge->envelope;
        x += NAME(load)(w) * along + outward * edge->direction[0];
        y += NAME(load)(w + plane) * along + outward * edge->direction[1];
        z += NAME(load)(w + 2 * plane) * along + outward * edge->direction[2];
    }
    NAME(store)(s, sum * HALF), NAME(store)(v, x), NAME(store)(v + plane, y),
        NAME(store)(v + 2 * plane, z);
}

/* The same of tensors. */
INLINE void NAME(send_tensors)(const Group* g, int i, int c, int F, int T, int stride,
                               size_t offset) {
    size_t plane = (size_t)g->atoms * T;
    int width = 3 * F + 2 * T;
    float* t = g->new_tensors + (size_t)i * T + c;
    const float* own = g->tensors + (size_t)i * T + c;
    LANES sums[5];
    for (int b = 0; b < 5; b++) sums[b] = NAME(load)(own + b * plane);
    for (const Edge *edge = g->edges + g->start[i], *end = g->edges + g->start[i + 1]; edge < end;
         edge++) {
        const float* f = g->filters + (size_t)edge->pair * stride + offset + 3 * F + c;
        const float* sent = g->source + (size_t)edge->source * width + 3 * F + c;
        const float *u = g->tensors + (size_t)edge->source * T + c, *q = g->lying + 5 * edge->pair;
        LANES same = NAME(load)(sent) * NAME(load)(f) * edge->envelope;
        LANES stretch = NAME(load)(sent + T) * NAME(load)(f + T) * edge->envelope;
        for (int b = 0; b < 5; b++) sums[b] += NAME(load)(u + b * plane) * same + stretch * q[b];
    }
    for (int b = 0; b < 5; b++) NAME(store)(t + b * plane, sums[b]);
}
