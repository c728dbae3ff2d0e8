/* Operations that map a small crystal onto itself. */
#ifndef DEEPRELAX_SYMMETRY_H
#define DEEPRELAX_SYMMETRY_H

#include <stdint.h>

/* Operations of a crystal, how many of them are pure translations, which come first, and whether
 * they are a group: of all of these, and one operation for each further rotation. */
typedef struct {
    int count, translations, is_group, room;
    int64_t* images;   /* [count][atoms] */
    double* rotations; /* [count][9] */
    double* vectors;   /* [count][3] */
} Operations;

/* Search them; 0 if memory is short. The caller frees the three arrays.
 *
 * basis: A reduced cell, row vectors; the operations are in its fractional coordinates.
 * scaled: Fractional coordinates of so many atoms.
 */
int deeprelax_find_operations(const double* basis, const double* scaled, const int64_t* numbers,
                              int atoms, double symprec, Operations* found);

/* Mean over operations of the images of all atoms, each taken to its own atom, into `mean`. */
void deeprelax_average(const double* rotations, const double* vectors, const int64_t* images,
                       int count, const double* scaled, int atoms, double* mean);

#endif
