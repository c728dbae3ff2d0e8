/* The network of one functional and architecture, and the work space of a group of crystals.
 *
 * Components come before atoms: vectors are [3][atoms][F], tensors [5][atoms][T]. Weights lie in
 * one block, in the order of relaxation/compiled_weights.py.
 */
#ifndef DEEPRELAX_LAYERS_H
#define DEEPRELAX_LAYERS_H

#include <stddef.h>
#include <stdint.h>

#define HALF 0.70710678118654752f  /* sqrt(1/2) */
#define SIXTH 0.40824829046386302f /* sqrt(1/6) */
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

typedef void (*Gemm)(char*, char*, int*, int*, int*, float*, float*, int*, float*, int*, float*,
                     float*, int*);

/* BLAS, that of scipy. */
extern Gemm deeprelax_gemm;

/* A linear layer of `in` to `out` channels; `bias` is NULL where there is none. */
typedef struct {
    const float *weight, *bias;
    int in, out;
} Dense;

typedef struct {
    Dense first, second;
} Gated;

typedef struct {
    Gated source;
    Dense mix;
    Gated gates;
    Dense tensor_mix, down, up;
    Gated tensor_gates;
} Layer;

#define MOST_LAYERS 16

typedef struct {
    int features, tensors, layers, radial, relative, edge;
    int exponent;
    float cutoff, width, relative_width;
    const float *centers, *relative_centers;
    Dense filter; /* of all layers, and the code of the edge head */
    Layer layer[MOST_LAYERS];
    Dense ends, pulls, along, hidden, out;
    Dense move_mix;
    Gated move_gates, strain_atoms;
    const float* strain_tensors;
} Network;

/* One direction of a pair: where it comes from. */
typedef struct {
    int pair, source;
    float envelope, direction[3];
} Edge;

/* Some crystals that go through the network together, and their work space. */
typedef struct {
    int atoms, pairs;
    const int64_t *first, *second;
    int* start; /* of the edges that lead to each atom */
    Edge* edges;
    float *directions, *lying, *envelope, *codes, *filters;
    float *scalars, *vectors, *tensors, *new_vectors, *new_tensors;
    float *source, *mixed, *both, *signs, *hidden, *gates, *turned, *dyads, *normal;
    float *moves, *edge_one, *edge_two, *edge_out;
} Group;

/* All layers and heads of a group: `edge_out`, `moves`, and `gates` of the strain. */
void deeprelax_run_network(const Network* net, Group* g, const float* scalars,
                           const double* vectors, const double* lengths, const float* touching);

/* Weights from their block; returns how many numbers they are. */
size_t deeprelax_read_weights(Network* net, const float* block);

/* Places in one block of memory for a group of so many atoms and pairs; returns its size. */
size_t deeprelax_lay_out(const Network* net, Group* g, size_t atoms, size_t pairs, float* block);

#endif
