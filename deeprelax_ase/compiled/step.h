/* One step of the joint solve, that of solver/gauss_newton.py, for one crystal. */
#ifndef DEEPRELAX_STEP_H
#define DEEPRELAX_STEP_H

#include <stddef.h>
#include <stdint.h>

typedef void (*Posv)(char*, int*, int*, double*, int*, double*, int*, int*);

/* LAPACK, that of scipy. */
extern Posv deeprelax_posv;

/* What log-scales, certainties and structures are kept within: LIMITS of
 * relaxation/compiled_weights.py. */
typedef struct {
    double least_log_scale, most_log_scale, least_weight, least_stretch, least_distance, tiny;
} Limits;

/* One crystal, what is predicted of it, and the structure that a step starts from and ends in. */
typedef struct {
    int atoms, pairs;
    int64_t base; /* number of its first atom in `first` and `second` */
    const int64_t *first, *second;
    const double *vectors, *lengths, *freedom;
    const uint8_t* fixed;
    double *distances, *weights, *moves, *move_weights, *deformation;
    double strain[9], strain_weight;
} Crystal;

/* Moves without those of fixed atoms; where no atom is fixed, of mean zero. */
void deeprelax_settle(double* moves, int count, const uint8_t* fixed);

/* Numbers that `deeprelax_step` needs to work with. */
size_t deeprelax_step_room(size_t atoms, size_t pairs);

/* One Gauss-Newton step of the joint fit from the heads' own structure, into `moves` and
 * `deformation`; whether `solve_joint` would make it, too, and end there. */
int deeprelax_step(Crystal* crystal, const Limits* limits, double* work);

#endif
