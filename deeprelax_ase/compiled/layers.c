/* The layers and heads of PaEGNN, those of network/message_passing.py and network/heads.py.
 *
 * What is gained over torch is memory traffic: what an edge sends is added up where it is made, and
 * a group of crystals goes through all layers while a core's cache holds it.
 */
#include "layers.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define RESTRICT __restrict__
#else
#define INLINE static __inline
#define RESTRICT __restrict
#endif

Gemm deeprelax_gemm;

INLINE float exponential(float x) {
    /* Cephes' expf; to 2 units in the last place, and vectorised by every compiler. */
    float k, r, y;
    int32_t bits;
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    k = x * 1.44269504088896341f + 12582912.0f;
    memcpy(&bits, &k, sizeof bits);
    k -= 12582912.0f;
    r = x - k * 0.693359375f + k * 2.12194440e-4f;
    y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    bits = (int32_t)((uint32_t)(bits - 0x4B400000 + 127) << 23);
    memcpy(&k, &bits, sizeof k);
    return y * k;
}

INLINE void silu(float* RESTRICT x, int count) {
    for (int i = 0; i < count; i++) x[i] = x[i] / (1.0f + exponential(-x[i]));
}

/* y = x @ weight + bias, of so many rows. */
INLINE void dense(const Dense* layer, const float* x, float* y, int rows) {
    float one = 1.0f, beta = layer->bias ? 1.0f : 0.0f;
    int in = layer->in, out = layer->out;
    if (layer->bias)
        for (int row = 0; row < rows; row++)
            memcpy(y + (size_t)row * out, layer->bias, (size_t)out * sizeof(float));
    deeprelax_gemm("N", "N", &out, &rows, &in, &one, (float*)layer->weight, &out, (float*)x, &in,
                   &beta, y, &out);
}

INLINE void gated(const Gated* gate, const float* x, float* hidden, float* y, int rows) {
    dense(&gate->first, x, hidden, rows);
    silu(hidden, rows * gate->first.out);
    dense(&gate->second, hidden, y, rows);
}

/* Components of the symmetric traceless part of the dyad of a and b. */
#define DYAD(c, a0, a1, a2, b0, b1, b2)                              \
    c[0] = HALF * ((a0) * (b2) + (a2) * (b0));                       \
    c[1] = HALF * ((a0) * (b1) + (a1) * (b0));                       \
    c[2] = SIXTH * (2.0f * (a1) * (b1) - (a0) * (b0) - (a2) * (b2)); \
    c[3] = HALF * ((a1) * (b2) + (a2) * (b1));                       \
    c[4] = HALF * ((a2) * (b2) - (a0) * (b0));

/* Directions, harmonics, basis functions and envelopes of the pairs. */
INLINE void see_pairs(const Network* net, Group* g, const double* vectors, const double* lengths,
                      const float* touching) {
    int basis = net->radial + net->relative, p = net->exponent;
    float first = (p + 1) * (p + 2) / 2.0f, second = p * (p + 2), third = p * (p + 1) / 2.0f;
    for (int pair = 0; pair < g->pairs; pair++) {
        float length = (float)lengths[pair], *d = g->directions + 3 * pair;
        float *code = g->codes + (size_t)pair * basis, scaled = length / net->cutoff, power = 1.0f;
        float absolute = length * net->width;
        float relative = length / touching[pair] * net->relative_width;
        for (int a = 0; a < 3; a++) d[a] = (float)vectors[3 * pair + a] / length;
        DYAD((g->lying + 5 * pair), d[0], d[1], d[2], d[0], d[1], d[2]);
        for (int k = 0; k < p; k++) power *= scaled;
        power = 1.0f - power * (first - scaled * (second - scaled * third));
        g->envelope[pair] = scaled < 1.0f ? power : 0.0f;
        for (int k = 0; k < net->radial; k++) code[k] = absolute - net->centers[k];
        for (int k = 0; k < net->relative; k++)
            code[net->radial + k] = relative - net->relative_centers[k];
        for (int k = 0; k < basis; k++) {
            float square = code[k] * code[k];
            code[k] = exponential(square < 30.0f ? -square : -30.0f);
        }
    }
}

/* Edges in the order of the atoms they lead to: each pair from both of its ends. */
INLINE void sort_edges(Group* g) {
    memset(g->start, 0, ((size_t)g->atoms + 2) * sizeof(int));
    for (int pair = 0; pair < g->pairs; pair++) {
        g->start[g->first[pair] + 2]++;
        g->start[g->second[pair] + 2]++;
    }
    for (int atom = 2; atom < g->atoms + 2; atom++) g->start[atom] += g->start[atom - 1];
    for (int pair = 0; pair < g->pairs; pair++) {
        const float* d = g->directions + 3 * (size_t)pair;
        float e = g->envelope[pair];
        Edge out = {pair, (int)g->second[pair], e, {d[0], d[1], d[2]}};
        Edge back = {pair, (int)g->first[pair], e, {-d[0], -d[1], -d[2]}};
        g->edges[g->start[g->first[pair] + 1]++] = out;
        g->edges[g->start[g->second[pair] + 1]++] = back;
    }
}

/* The functions of send.h, for 16 channels at once where the compiler knows vectors, and for one.
 */
#define LANES float
#define NAME(function) function##_one
#include "send.h"
#undef LANES
#undef NAME
#if defined(__GNUC__)
#define AT_ONCE 16
typedef float Lanes __attribute__((vector_size(4 * AT_ONCE)));
#define LANES Lanes
#define NAME(function) function##_many
#include "send.h"
#else
#define AT_ONCE 1
#define send_vectors_many send_vectors_one
#define send_tensors_many send_tensors_one
#endif

/* What the neighbours send (Eq. 4, 5), with the residuals. */
INLINE void message(const Network* net, const Layer* layer, int number, Group* g) {
    int n = g->atoms, F = net->features, T = net->tensors, width = 3 * F + 2 * T;
    int stride = net->filter.out;
    size_t offset = (size_t)number * width;
    float* swap;
    for (int i = 0; i < n; i++) {
        const float* x = g->scalars + (size_t)i * F;
        float *y = g->normal + (size_t)i * F, mean = 0.0f, spread = 0.0f;
        for (int c = 0; c < F; c++) mean += x[c];
        mean /= F;
        for (int c = 0; c < F; c++) {
            y[c] = x[c] - mean;
            spread += y[c] * y[c];
        }
        spread = 1.0f / sqrtf(spread / F + 1e-5f);
        for (int c = 0; c < F; c++) y[c] *= spread;
    }
    gated(&layer->source, g->normal, g->hidden, g->source, n);
    for (int i = 0; i < n; i++) {
        int c = 0;
        for (; c + AT_ONCE <= F; c += AT_ONCE) send_vectors_many(g, i, c, F, width, stride, offset);
        for (; c < F; c++) send_vectors_one(g, i, c, F, width, stride, offset);
        for (c = 0; c + AT_ONCE <= T; c += AT_ONCE)
            send_tensors_many(g, i, c, F, T, stride, offset);
        for (; c < T; c++) send_tensors_one(g, i, c, F, T, stride, offset);
    }
    swap = g->vectors, g->vectors = g->new_vectors, g->new_vectors = swap;
    swap = g->tensors, g->tensors = g->new_tensors, g->new_tensors = swap;
}

/* Exchange between the scalars and the vectors of an atom (Eq. 6, 7). */
INLINE void update(const Network* net, const Layer* layer, Group* g) {
    int n = g->atoms, F = net->features;
    dense(&layer->mix, g->vectors, g->mixed, 3 * n);
    for (int i = 0; i < n; i++) {
        const float* RESTRICT m0 = g->mixed + (size_t)i * 2 * F;
        const float *RESTRICT m1 = m0 + (size_t)n * 2 * F, *RESTRICT m2 = m1 + (size_t)n * 2 * F;
        float *RESTRICT sign = g->signs + (size_t)i * 2 * F,
                        *RESTRICT inner = g->normal + (size_t)i * F;
        memcpy(sign, g->scalars + (size_t)i * F, (size_t)F * sizeof(float));
        for (int c = 0; c < F; c++) {
            float x = m0[F + c], y = m1[F + c], z = m2[F + c];
            sign[F + c] = sqrtf(x * x + y * y + z * z + 1e-8f);
            inner[c] = m0[c] * x + m1[c] * y + m2[c] * z;
        }
    }
    gated(&layer->gates, g->signs, g->hidden, g->gates, n);
    for (int i = 0; i < n; i++) {
        const float* RESTRICT gate = g->gates + (size_t)i * 3 * F;
        const float* RESTRICT inner = g->normal + (size_t)i * F;
        float* RESTRICT s = g->scalars + (size_t)i * F;
        for (int c = 0; c < F; c++) s[c] += gate[c] + gate[F + c] * inner[c];
        for (int a = 0; a < 3; a++) {
            float* RESTRICT v = g->vectors + ((size_t)a * n + i) * F;
            const float* RESTRICT m = g->mixed + ((size_t)a * n + i) * 2 * F;
            for (int c = 0; c < F; c++) v[c] += gate[2 * F + c] * m[c];
        }
    }
}

/* Exchange between the scalars, vectors and tensors of an atom. */
INLINE void tensor_update(const Network* net, const Layer* layer, Group* g) {
    int n = g->atoms, F = net->features, T = net->tensors, told = F + 3 * T;
    size_t row = (size_t)n * 2 * T, third = (size_t)n * T;
    dense(&layer->tensor_mix, g->tensors, g->mixed, 5 * n);
    dense(&layer->down, g->vectors, g->both, 3 * n);
    for (int i = 0; i < n; i++) {
        const float* RESTRICT m = g->mixed + (size_t)i * 2 * T;
        const float* RESTRICT o = g->both + (size_t)i * 2 * T;
        float *RESTRICT turned = g->turned + (size_t)i * T,
                        *RESTRICT dyad = g->dyads + (size_t)i * T;
        float* RESTRICT sign = g->signs + (size_t)i * told;
        memcpy(sign, g->scalars + (size_t)i * F, (size_t)F * sizeof(float));
        for (int c = 0; c < T; c++) {
            float f[5], k[5], d[5], square = 0.0f, same = 0.0f, like = 0.0f;
            float a0 = o[c], a1 = o[row + c], a2 = o[2 * row + c];
            float b0 = o[T + c], b1 = o[row + T + c], b2 = o[2 * row + T + c];
            for (int b = 0; b < 5; b++) f[b] = m[b * row + c], k[b] = m[b * row + T + c];
            DYAD(d, a0, a1, a2, b0, b1, b2);
            for (int b = 0; b < 5; b++) {
                dyad[b * third + c] = d[b];
                square += k[b] * k[b];
                same += f[b] * k[b];
                like += f[b] * d[b];
            }
            turned[c] = (-SIXTH * f[2] - HALF * f[4]) * a0 + HALF * (f[1] * a1 + f[0] * a2);
            turned[third + c] = 2.0f * SIXTH * f[2] * a1 + HALF * (f[1] * a0 + f[3] * a2);
            turned[2 * third + c] =
                (HALF * f[4] - SIXTH * f[2]) * a2 + HALF * (f[0] * a0 + f[3] * a1);
            sign[F + c] = sqrtf(square + 1e-8f);
            sign[F + T + c] = same;
            sign[F + 2 * T + c] = like;
        }
    }
    gated(&layer->tensor_gates, g->signs, g->hidden, g->gates, n);
    dense(&layer->up, g->turned, g->both, 3 * n);
    for (int i = 0; i < n; i++) {
        const float* RESTRICT gate = g->gates + (size_t)i * (2 * F + 2 * T);
        float* RESTRICT s = g->scalars + (size_t)i * F;
        for (int c = 0; c < F; c++) s[c] += gate[c];
        for (int a = 0; a < 3; a++) {
            float* RESTRICT v = g->vectors + ((size_t)a * n + i) * F;
            const float* RESTRICT up = g->both + ((size_t)a * n + i) * F;
            for (int c = 0; c < F; c++) v[c] += gate[F + c] * up[c];
        }
        for (int b = 0; b < 5; b++) {
            float* RESTRICT t = g->tensors + ((size_t)b * n + i) * T;
            const float* RESTRICT m = g->mixed + ((size_t)b * n + i) * 2 * T;
            const float* RESTRICT d = g->dyads + ((size_t)b * n + i) * T;
            for (int c = 0; c < T; c++) t[c] += gate[2 * F + c] * m[c] + gate[2 * F + T + c] * d[c];
        }
    }
}

/* Stretch, pull, scale and certainty of every pair, into `edge_out`. */
INLINE void edge_head(const Network* net, Group* g) {
    int n = g->atoms, T = net->tensors, W = net->edge, stride = net->filter.out;
    float *ends = g->mixed, *pulls = g->both;
    dense(&net->ends, g->scalars, ends, n);
    dense(&net->pulls, g->vectors, pulls, 3 * n);
    for (int pair = 0; pair < g->pairs; pair++) {
        size_t i = (size_t)g->first[pair], j = (size_t)g->second[pair];
        const float* q = g->lying + 5 * pair;
        const float *RESTRICT t = g->tensors + i * T, *RESTRICT u = g->tensors + j * T;
        float* RESTRICT y = g->edge_two + (size_t)pair * T;
        size_t third = (size_t)n * T;
        for (int c = 0; c < T; c++) {
            float sum = 0.0f;
            for (int b = 0; b < 5; b++) sum += (t[b * third + c] + u[b * third + c]) * q[b];
            y[c] = sum;
        }
    }
    dense(&net->along, g->edge_two, g->edge_one, g->pairs);
    for (int pair = 0; pair < g->pairs; pair++) {
        size_t i = (size_t)g->first[pair], j = (size_t)g->second[pair], third = (size_t)n * W;
        const float* d = g->directions + 3 * pair;
        const float *RESTRICT p = pulls + i * W, *RESTRICT q = pulls + j * W;
        const float *RESTRICT x = ends + i * W, *RESTRICT y = ends + j * W;
        const float* RESTRICT code = g->filters + (size_t)pair * stride + (stride - W);
        float* RESTRICT z = g->edge_one + (size_t)pair * W;
        for (int c = 0; c < W; c++)
            z[c] += x[c] + y[c] + code[c] + (p[c] - q[c]) * d[0] +
                    (p[third + c] - q[third + c]) * d[1] +
                    (p[2 * third + c] - q[2 * third + c]) * d[2];
    }
    silu(g->edge_one, g->pairs * W);
    dense(&net->hidden, g->edge_one, g->edge_two, g->pairs);
    silu(g->edge_two, g->pairs * W);
    dense(&net->out, g->edge_two, g->edge_out, g->pairs);
}

/* A displacement, its scale and its certainty for every atom, into `moves` (5 each). */
INLINE void displacement_head(const Network* net, Group* g) {
    int n = g->atoms, F = net->features;
    dense(&net->move_mix, g->vectors, g->mixed, 3 * n);
    for (int i = 0; i < n; i++) {
        const float* RESTRICT m0 = g->mixed + (size_t)i * 2 * F + F;
        const float *RESTRICT m1 = m0 + (size_t)n * 2 * F, *RESTRICT m2 = m1 + (size_t)n * 2 * F;
        float* RESTRICT sign = g->signs + (size_t)i * 2 * F;
        memcpy(sign, g->scalars + (size_t)i * F, (size_t)F * sizeof(float));
        for (int c = 0; c < F; c++)
            sign[F + c] = sqrtf(m0[c] * m0[c] + m1[c] * m1[c] + m2[c] * m2[c] + 1e-8f);
    }
    gated(&net->move_gates, g->signs, g->hidden, g->gates, n);
    for (int i = 0; i < n; i++) {
        const float* gate = g->gates + (size_t)i * (F + 2);
        for (int a = 0; a < 3; a++) {
            const float* m = g->mixed + ((size_t)a * n + i) * 2 * F;
            float sum = 0.0f;
            for (int c = 0; c < F; c++) sum += m[c] * gate[c];
            g->moves[5 * i + a] = sum / F;
        }
        g->moves[5 * i + 3] = gate[F];
        g->moves[5 * i + 4] = gate[F + 1];
    }
}

/* All layers and heads of a group. */
FOR_EACH_PROCESSOR
void deeprelax_run_network(const Network* net, Group* g, const float* scalars,
                           const double* vectors, const double* lengths, const float* touching) {
    memcpy(g->scalars, scalars, (size_t)g->atoms * net->features * sizeof(float));
    memset(g->vectors, 0, (size_t)g->atoms * 3 * net->features * sizeof(float));
    memset(g->tensors, 0, (size_t)g->atoms * 5 * net->tensors * sizeof(float));
    see_pairs(net, g, vectors, lengths, touching);
    sort_edges(g);
    dense(&net->filter, g->codes, g->filters, g->pairs);
    for (int number = 0; number < net->layers; number++) {
        const Layer* layer = net->layer + number;
        message(net, layer, number, g);
        update(net, layer, g);
        tensor_update(net, layer, g);
    }
    edge_head(net, g);
    displacement_head(net, g);
    gated(&net->strain_atoms, g->scalars, g->hidden, g->gates, g->atoms);
}

size_t deeprelax_read_weights(Network* net, const float* block) {
    int F = net->features, T = net->tensors, W = net->edge, basis = net->radial + net->relative;
    size_t at = 0;
#define TAKE(count) (at += (size_t)(count), block ? block + at - (count) : NULL)
#define DENSE(target, rows, columns, has_bias)            \
    do {                                                  \
        Dense* layer_ = &(target);                        \
        layer_->in = (rows), layer_->out = (columns);     \
        layer_->weight = TAKE((rows) * (columns));        \
        layer_->bias = (has_bias) ? TAKE(columns) : NULL; \
    } while (0)
    net->centers = TAKE(net->radial);
    net->relative_centers = TAKE(net->relative);
    DENSE(net->filter, basis, net->layers * (3 * F + 2 * T) + W, 1);
    for (int number = 0; number < net->layers; number++) {
        Layer* layer = net->layer + number;
        DENSE(layer->source.first, F, F, 1);
        DENSE(layer->source.second, F, 3 * F + 2 * T, 1);
        DENSE(layer->mix, F, 2 * F, 0);
        DENSE(layer->gates.first, 2 * F, F, 1);
        DENSE(layer->gates.second, F, 3 * F, 1);
        DENSE(layer->tensor_mix, T, 2 * T, 0);
        DENSE(layer->down, F, 2 * T, 0);
        DENSE(layer->up, T, F, 0);
        DENSE(layer->tensor_gates.first, F + 3 * T, F, 1);
        DENSE(layer->tensor_gates.second, F, 2 * F + 2 * T, 1);
    }
    DENSE(net->ends, F, W, 1);
    DENSE(net->pulls, F, W, 0);
    DENSE(net->along, T, W, 0);
    DENSE(net->hidden, W, W, 1);
    DENSE(net->out, W, 4, 1);
    DENSE(net->move_mix, F, 2 * F, 0);
    DENSE(net->move_gates.first, 2 * F, F, 1);
    DENSE(net->move_gates.second, F, F + 2, 1);
    DENSE(net->strain_atoms.first, F, F, 1);
    DENSE(net->strain_atoms.second, F, 3, 1);
    net->strain_tensors = TAKE(T);
    return at;
}

size_t deeprelax_lay_out(const Network* net, Group* g, size_t n, size_t p, float* block) {
    size_t F = net->features, T = net->tensors, W = net->edge, at = 0;
    size_t basis = net->radial + net->relative, sent = 3 * F + 2 * T;
#define ROOM(name, count) (g->name = block ? block + at : NULL, at += ((count) + 15) / 16 * 16)
    ROOM(directions, 3 * p);
    ROOM(lying, 5 * p);
    ROOM(envelope, p);
    ROOM(codes, basis * p);
    ROOM(filters, (size_t)net->filter.out * p);
    ROOM(scalars, F * n);
    ROOM(vectors, 3 * F * n);
    ROOM(tensors, 5 * T * n);
    ROOM(new_vectors, 3 * F * n);
    ROOM(new_tensors, 5 * T * n);
    ROOM(source, sent * n);
    ROOM(mixed, LARGER(LARGER(6 * F, 10 * T), W) * n);
    ROOM(both, LARGER(LARGER(6 * T, 3 * F), 3 * W) * n);
    ROOM(signs, LARGER(2 * F, F + 3 * T) * n);
    ROOM(hidden, F * n);
    ROOM(gates, LARGER(LARGER(3 * F, 2 * F + 2 * T), 3) * n);
    ROOM(turned, 3 * T * n);
    ROOM(dyads, 5 * T * n);
    ROOM(normal, F * n);
    ROOM(moves, 5 * n);
    ROOM(edge_one, W * p);
    ROOM(edge_two, LARGER(W, T) * p);
    ROOM(edge_out, 4 * p);
    return at;
}
