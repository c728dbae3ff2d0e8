#include "symmetry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 26
#define MOST_ROTATIONS 1000
/* A product of translations may be so many times the tolerance off. */
#define LOOSE 3.0

/* Vectors that an isometry of a reduced lattice may take a basis vector to; its own come first. */
static void make_steps(int steps[STEPS][3]) {
    int count = 3;
    memset(steps, 0, STEPS * sizeof *steps);
    steps[0][0] = steps[1][1] = steps[2][2] = 1;
    for (int code = 0; code < 27; code++) {
        int step[3] = {code / 9 - 1, code / 3 % 3 - 1, code % 3 - 1};
        int sum = step[0] + step[1] + step[2];
        int squares = step[0] * step[0] + step[1] * step[1] + step[2] * step[2];
        if (squares > 0 && !(squares == 1 && sum == 1)) memcpy(steps[count++], step, sizeof step);
    }
}

/* Isometries of a reduced lattice, the identity first; returns how many. */
static int lattice_rotations(const double* basis, double symprec, double* rotations, int room) {
    int steps[STEPS][3], count = 0;
    double vectors[STEPS][3], lengths[STEPS], dots[STEPS][STEPS];
    make_steps(steps);
    for (int s = 0; s < STEPS; s++)
        for (int a = 0; a < 3; a++)
            vectors[s][a] =
                steps[s][0] * basis[a] + steps[s][1] * basis[3 + a] + steps[s][2] * basis[6 + a];
    for (int s = 0; s < STEPS; s++)
        for (int t = 0; t < STEPS; t++)
            dots[s][t] = vectors[s][0] * vectors[t][0] + vectors[s][1] * vectors[t][1] +
                         vectors[s][2] * vectors[t][2];
    for (int s = 0; s < STEPS; s++) lengths[s] = sqrt(dots[s][s]);
    for (int i = 0; i < STEPS; i++) {
        if (!(fabs(lengths[i] - lengths[0]) < symprec)) continue;
        for (int j = 0; j < STEPS; j++) {
            if (!(fabs(lengths[j] - lengths[1]) < symprec)) continue;
            if (!(fabs(dots[i][j] - dots[0][1]) < symprec * (lengths[0] + lengths[1]))) continue;
            for (int k = 0; k < STEPS && count < room; k++) {
                if (!(fabs(lengths[k] - lengths[2]) < symprec)) continue;
                if (!(fabs(dots[j][k] - dots[1][2]) < symprec * (lengths[1] + lengths[2])))
                    continue;
                if (!(fabs(dots[i][k] - dots[2][0]) < symprec * (lengths[2] + lengths[0])))
                    continue;
                for (int a = 0; a < 3; a++) {
                    rotations[9 * count + 3 * a] = steps[i][a];
                    rotations[9 * count + 3 * a + 1] = steps[j][a];
                    rotations[9 * count + 3 * a + 2] = steps[k][a];
                }
                count++;
            }
        }
    }
    return count;
}

typedef struct {
    const double *basis, *scaled;
    const int64_t* numbers;
    int atoms;
} Cell;

static void turn(const double* rotation, const double* x, double* y) {
    for (int a = 0; a < 3; a++)
        y[a] = rotation[3 * a] * x[0] + rotation[3 * a + 1] * x[1] + rotation[3 * a + 2] * x[2];
}

static double square_of(const double* basis, const double* apart) {
    double square = 0.0;
    for (int a = 0; a < 3; a++) {
        double x = apart[0] * basis[a] + apart[1] * basis[3 + a] + apart[2] * basis[6 + a];
        square += x * x;
    }
    return square;
}

/* The atom of such a number nearest to a place or one of its images, if it is within a distance;
 * or -1. */
static int atom_at(const Cell* cell, const double* place, int64_t number, double distance) {
    double nearest = distance * distance;
    int found = -1;
    for (int j = 0; j < cell->atoms; j++) {
        double apart[3], square;
        if (cell->numbers[j] != number) continue;
        for (int a = 0; a < 3; a++) {
            apart[a] = place[a] - cell->scaled[3 * j + a];
            apart[a] -= rint(apart[a]);
        }
        square = square_of(cell->basis, apart);
        if (square < nearest) nearest = square, found = j;
    }
    return found;
}

/* Fit the translation of an operation to all atoms; returns how far the worst is from its image,
 * or infinity where one has none. `vector` is that of one atom, which may be twice as far off. */
static double fit(const Cell* cell, const double* rotation, double symprec, double* vector,
                  int64_t* images) {
    double mean[3] = {0.0, 0.0, 0.0}, worst = 0.0;
    /* The last atoms are tried first: most operations fail on these already. */
    for (int i = cell->atoms - 1; i >= 0; i--) {
        double turned[3], place[3];
        turn(rotation, cell->scaled + 3 * i, turned);
        for (int a = 0; a < 3; a++) place[a] = turned[a] + vector[a];
        images[i] = atom_at(cell, place, cell->numbers[i], 2.0 * symprec);
        if (images[i] < 0) return INFINITY;
        for (int a = 0; a < 3; a++) {
            double apart = cell->scaled[3 * images[i] + a] - turned[a];
            mean[a] += (apart - rint(apart - vector[a])) / cell->atoms;
        }
    }
    for (int i = 0; i < cell->atoms; i++) {
        double apart[3], square;
        turn(rotation, cell->scaled + 3 * i, apart);
        for (int a = 0; a < 3; a++) {
            apart[a] += mean[a] - cell->scaled[3 * images[i] + a];
            apart[a] -= rint(apart[a]);
        }
        square = square_of(cell->basis, apart);
        worst = square > worst ? square : worst;
    }
    memcpy(vector, mean, sizeof mean);
    return sqrt(worst);
}

/* Make room for one more operation; 0 if memory is short. */
static int make_room(Operations* found, int atoms) {
    int room = 2 * found->room + 64;
    void *images, *rotations, *vectors;
    if (found->count < found->room) return 1;
    images = realloc(found->images, (size_t)room * atoms * sizeof(int64_t));
    if (images) found->images = images;
    rotations = realloc(found->rotations, (size_t)room * 9 * sizeof(double));
    if (rotations) found->rotations = rotations;
    vectors = realloc(found->vectors, (size_t)room * 3 * sizeof(double));
    if (vectors) found->vectors = vectors;
    if (!images || !rotations || !vectors) return 0;
    found->room = room;
    return 1;
}

/* The first atom of the species with the fewest, of the lightest one among these. */
static int rarest(const int64_t* numbers, int atoms) {
    int best = 0, fewest = atoms + 1;
    for (int i = 0; i < atoms; i++) {
        int count = 0, is_first = 1;
        for (int j = 0; j < atoms; j++) {
            count += numbers[j] == numbers[i];
            is_first &= j >= i || numbers[j] != numbers[i];
        }
        if (is_first && (count < fewest || (count == fewest && numbers[i] < numbers[best])))
            best = i, fewest = count;
    }
    return best;
}

/* A rotation of entries -1, 0 and 1 as a number; products may have others, and other numbers. */
static int code_of(const double* rotation) {
    int code = 0;
    for (int k = 0; k < 9; k++) code = 7 * code + (int)rotation[k] + 3;
    return code;
}

/* Whether the products of rotations, of entries -1, 0 and 1, are among them. */
static int is_closed(const double* rotations, int count) {
    for (int r = 0; r < count; r++)
        for (int s = 0; s < count; s++) {
            double product[9];
            int code, is_own = 0;
            for (int a = 0; a < 3; a++)
                for (int b = 0; b < 3; b++)
                    product[3 * a + b] = rotations[9 * r + 3 * a] * rotations[9 * s + b] +
                                         rotations[9 * r + 3 * a + 1] * rotations[9 * s + 3 + b] +
                                         rotations[9 * r + 3 * a + 2] * rotations[9 * s + 6 + b];
            code = code_of(product);
            for (int t = 0; t < count && !is_own; t++) is_own = code_of(rotations + 9 * t) == code;
            if (!is_own) return 0;
        }
    return 1;
}

/* Keep the translations that are within the tolerance, and their products, which may be somewhat
 * beyond; whether all of these are there. `fits` says how far off each is, `at` is the atom that
 * they were found by. */
static int close_translations(Operations* found, const double* fits, int atoms, int at,
                              double symprec, int* number, uint8_t* is_kept) {
    int count = found->count, kept = 0, is_new = 1;
    for (int i = 0; i < atoms; i++) number[i] = -1;
    for (int t = 0; t < count; t++) {
        number[found->images[(size_t)t * atoms + at]] = t;
        is_kept[t] = fits[t] < symprec;
    }
    while (is_new) {
        is_new = 0;
        for (int t = 0; t < count; t++)
            for (int u = 0; u < count && is_kept[t]; u++) {
                const int64_t* first = found->images + (size_t)t * atoms;
                int product = number[first[found->images[(size_t)u * atoms + at]]];
                if (!is_kept[u] || (product >= 0 && is_kept[product])) continue;
                if (product < 0) return 0;
                is_kept[product] = 1;
                is_new = 1;
            }
    }
    for (int t = 0; t < count; t++) {
        if (!is_kept[t]) continue;
        memmove(found->images + (size_t)kept * atoms, found->images + (size_t)t * atoms,
                (size_t)atoms * sizeof(int64_t));
        memmove(found->vectors + 3 * (size_t)kept, found->vectors + 3 * (size_t)t,
                3 * sizeof(double));
        kept++;
    }
    found->count = kept;
    return 1;
}

/* Add an operation; 0 if memory is short. */
static int add_operation(Operations* found, const double* rotation, const double* vector,
                         const int64_t* images, int atoms) {
    if (!make_room(found, atoms)) return 0;
    memcpy(found->images + (size_t)found->count * atoms, images, (size_t)atoms * sizeof(int64_t));
    memcpy(found->rotations + 9 * (size_t)found->count, rotation, 9 * sizeof(double));
    memcpy(found->vectors + 3 * (size_t)found->count, vector, 3 * sizeof(double));
    found->count++;
    return 1;
}

/* With the work space that `deeprelax_find_operations` made for it. */
static int search(const Cell* cell, double symprec, Operations* found, double* rotations,
                  double* fits, int64_t* images, int* number, uint8_t* is_kept) {
    int atoms = cell->atoms, rare = rarest(cell->numbers, atoms);
    int count = lattice_rotations(cell->basis, symprec, rotations, MOST_ROTATIONS);
    for (int r = 0; r < count; r++) {
        const double* rotation = rotations + 9 * r;
        double turned[3], tolerance = r ? symprec : LOOSE * symprec;
        turn(rotation, cell->scaled + 3 * rare, turned);
        /* The atom itself first: of the translations, the identity comes first. */
        for (int k = 0; k < atoms; k++) {
            int other = (rare + k) % atoms;
            double vector[3], worst;
            if (cell->numbers[other] != cell->numbers[rare]) continue;
            for (int a = 0; a < 3; a++) vector[a] = cell->scaled[3 * other + a] - turned[a];
            worst = fit(cell, rotation, tolerance, vector, images);
            if (!(worst < tolerance)) continue;
            if (r == 0) fits[found->count] = worst;
            if (!add_operation(found, rotation, vector, images, atoms)) return 0;
            if (r > 0) break; /* others of the same rotation differ by pure translations */
        }
        if (r > 0) continue;
        found->is_group = close_translations(found, fits, atoms, rare, symprec, number, is_kept);
        found->translations = found->count;
        found->is_group &= found->count > 0;
        if (!found->is_group) return 1;
    }
    if (found->is_group)
        found->is_group = is_closed(found->rotations + 9 * (size_t)(found->translations - 1),
                                    found->count - found->translations + 1);
    return 1;
}

int deeprelax_find_operations(const double* basis, const double* scaled, const int64_t* numbers,
                              int atoms, double symprec, Operations* found) {
    const Cell cell = {basis, scaled, numbers, atoms};
    size_t n = (size_t)atoms + 1;
    double* reals = malloc((MOST_ROTATIONS * 9 + n) * sizeof(double));
    int64_t* images = malloc(n * sizeof(int64_t));
    int* number = malloc(n * sizeof(int));
    uint8_t* is_kept = malloc(n);
    int is_done = 0;
    memset(found, 0, sizeof *found);
    if (reals && images && number && is_kept)
        is_done = search(&cell, symprec, found, reals, reals + MOST_ROTATIONS * 9, images, number,
                         is_kept);
    free(reals), free(images), free(number), free(is_kept);
    return is_done;
}

void deeprelax_average(const double* rotations, const double* vectors, const int64_t* images,
                       int count, const double* scaled, int atoms, double* mean) {
    memset(mean, 0, 3 * (size_t)atoms * sizeof(double));
    for (int k = 0; k < count; k++)
        for (int i = 0; i < atoms; i++) {
            int64_t own = images[(size_t)k * atoms + i];
            double moved[3];
            turn(rotations + 9 * (size_t)k, scaled + 3 * (size_t)i, moved);
            for (int a = 0; a < 3; a++) {
                double place = moved[a] + vectors[3 * (size_t)k + a];
                place -= rint(place - scaled[3 * own + a]);
                mean[3 * own + a] += place / count;
            }
        }
}
