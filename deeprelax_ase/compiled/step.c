#include "step.h"

#include <math.h>
#include <string.h>

#define ROOT 0.70710678118654752440 /* sqrt(1/2) */

Posv deeprelax_posv;

static void multiply(const double* a, const double* b, double* c) {
    double product[9];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            product[3 * i + j] =
                a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
    memcpy(c, product, sizeof product);
}

/* Exponential of a matrix of norm below 2: its series for a 64th of it, squared six times. */
static void exponential_of(const double* matrix, double* result) {
    double part[9], term[9];
    for (int k = 0; k < 9; k++) part[k] = matrix[k] / 64.0, result[k] = term[k] = k % 4 == 0;
    for (int order = 1; order < 12; order++) {
        multiply(term, part, term);
        for (int k = 0; k < 9; k++) result[k] += term[k] /= order;
    }
    for (int k = 0; k < 6; k++) multiply(result, result, result);
}

/* Whether the stretches of a symmetric deformation are all above the least. */
static int is_stretched(const double* d, double least) {
    double a = d[0] - least, b = d[4] - least, c = d[8] - least;
    double minor = a * b - d[1] * d[1];
    double all = a * (b * c - d[5] * d[5]) - d[1] * (d[1] * c - d[5] * d[2]) +
                 d[2] * (d[1] * d[5] - b * d[2]);
    return a > 0.0 && minor > 0.0 && all > 0.0;
}

/* Components xx, yy, zz and sqrt(2) times yz, xz, xy of flat matrices: COMPONENTS of held.py. */
static const int UPPER[6][2] = {{0, 0}, {4, 4}, {8, 8}, {5, 7}, {2, 6}, {1, 3}};

static void components(const double* flat, double* six) {
    for (int k = 0; k < 6; k++)
        six[k] = k < 3 ? flat[UPPER[k][0]] : (flat[UPPER[k][0]] + flat[UPPER[k][1]]) * ROOT;
}

static void flat_of(const double* six, double* flat) {
    for (int k = 0; k < 6; k++)
        flat[UPPER[k][0]] = flat[UPPER[k][1]] = k < 3 ? six[k] : six[k] * ROOT;
}

void deeprelax_settle(double* moves, int count, const uint8_t* fixed) {
    double mean[3] = {0.0, 0.0, 0.0};
    int is_anchored = 0;
    for (int i = 0; i < count; i++) {
        is_anchored |= fixed[i];
        for (int a = 0; a < 3; a++) mean[a] += moves[3 * i + a] / count;
    }
    for (int i = 0; i < count; i++)
        for (int a = 0; a < 3; a++)
            moves[3 * i + a] =
                is_anchored ? (fixed[i] ? 0.0 : moves[3 * i + a]) : moves[3 * i + a] - mean[a];
}

static void add_block(double* matrix, int size, int row, int column, const double* a,
                      const double* b, int count, double factor) {
    for (int k = 0; k < 3; k++)
        for (int l = 0; l < count; l++)
            matrix[(size_t)(row + k) * size + column + l] += factor * a[k] * b[l];
}

/* Derivatives by the six strains of what changes by nine components, for those that are free. */
static void free_strains(const double* freedom, double turned[9][6]) {
    for (int k = 0; k < 6; k++) {
        double unit[6] = {0}, flat[9], free[9], six[6];
        unit[k] = 1.0;
        flat_of(unit, flat);
        for (int l = 0; l < 9; l++) {
            free[l] = 0.0;
            for (int m = 0; m < 9; m++) free[l] += freedom[9 * l + m] * flat[m];
        }
        components(free, six);
        flat_of(six, flat);
        for (int l = 0; l < 9; l++) turned[l][k] = flat[l];
    }
}

/* Length of a pair once its atoms have moved and space is deformed; its vector before and after the
   latter. */
static double moved_pair(const Crystal* crystal, int pair, const double* moves,
                         const double* deformation, double* x, double* y) {
    int i = (int)(crystal->first[pair] - crystal->base);
    int j = (int)(crystal->second[pair] - crystal->base);
    const double* vector = crystal->vectors + 3 * (size_t)pair;
    double square = 0.0;
    for (int a = 0; a < 3; a++) x[a] = vector[a] + moves[3 * j + a] - moves[3 * i + a];
    for (int a = 0; a < 3; a++) {
        y[a] = x[0] * deformation[a] + x[1] * deformation[3 + a] + x[2] * deformation[6 + a];
        square += y[a] * y[a];
    }
    return sqrt(square);
}

size_t deeprelax_step_room(size_t atoms, size_t pairs) {
    size_t size = 3 * atoms + 6;
    return size * (size + 2) + pairs;
}

int deeprelax_step(Crystal* crystal, const Limits* limits, double* work) {
    int n = crystal->atoms, size = 3 * n + 6, one = 1, info, is_sound = 1;
    const uint8_t* fixed = crystal->fixed;
    double *moves = crystal->moves, *deformation = crystal->deformation;
    double *matrix = work, *right = matrix + (size_t)size * size, *moved = right + size;
    double *old = moved + size, before = 0.0, after = 0.0, square = 0.0;
    double turned[9][6], strain[9], change[9], new_deformation[9];

    for (int k = 0; k < 9; k++) square += crystal->strain[k] * crystal->strain[k];
    if (!(sqrt(square) < -log(limits->least_stretch))) return 0;
    exponential_of(crystal->strain, deformation);
    free_strains(crystal->freedom, turned);
    memset(matrix, 0, ((size_t)size * size + size) * sizeof(double));
    for (int pair = 0; pair < crystal->pairs; pair++) {
        int i = (int)(crystal->first[pair] - crystal->base);
        int j = (int)(crystal->second[pair] - crystal->base);
        double x[3], y[3], by_move[3], by_strain[6] = {0};
        double length = old[pair] = moved_pair(crystal, pair, moves, deformation, x, y);
        double weight = crystal->weights[pair], residual = crystal->distances[pair] - length;
        before += weight * residual * residual;
        for (int a = 0; a < 3; a++) y[a] /= length;
        for (int a = 0; a < 3; a++)
            by_move[a] =
                y[0] * deformation[a] + y[1] * deformation[3 + a] + y[2] * deformation[6 + a];
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                for (int k = 0; k < 6; k++) by_strain[k] += x[a] * y[b] * turned[3 * a + b][k];
        for (int k = 0; k < 6; k++) {
            double factor = weight * by_strain[k];
            right[3 * n + k] += factor * residual;
            for (int l = k; l < 6; l++)
                matrix[(size_t)(3 * n + k) * size + 3 * n + l] += factor * by_strain[l];
        }
        if (i == j) continue; /* an atom and its own image move as one */
        if (!fixed[i]) {
            add_block(matrix, size, 3 * i, 3 * i, by_move, by_move, 3, weight);
            add_block(matrix, size, 3 * i, 3 * n, by_move, by_strain, 6, -weight);
            for (int a = 0; a < 3; a++) right[3 * i + a] -= weight * residual * by_move[a];
        }
        if (!fixed[j]) {
            add_block(matrix, size, 3 * j, 3 * j, by_move, by_move, 3, weight);
            add_block(matrix, size, 3 * j, 3 * n, by_move, by_strain, 6, weight);
            for (int a = 0; a < 3; a++) right[3 * j + a] += weight * residual * by_move[a];
        }
        if (!fixed[i] && !fixed[j])
            add_block(matrix, size, 3 * (i < j ? i : j), 3 * (i < j ? j : i), by_move, by_move, 3,
                      -weight);
    }
    for (int k = 0; k < 3 * n; k++)
        matrix[(size_t)k * (size + 1)] += fixed[k / 3] ? 1.0 : crystal->move_weights[k / 3];
    for (int k = 3 * n; k < size; k++) matrix[(size_t)k * (size + 1)] += crystal->strain_weight;
    /* The upper triangle by rows is the lower one by columns. */
    deeprelax_posv("L", &size, &one, matrix, &size, right, &size, &info);
    if (info != 0) return 0;

    for (int k = 0; k < 3 * n; k++) moved[k] = moves[k] + right[k];
    deeprelax_settle(moved, n, fixed);
    flat_of(right + 3 * n, strain);
    for (int k = 0; k < 9; k++) {
        change[k] = 0.0;
        for (int l = 0; l < 9; l++) change[k] += crystal->freedom[9 * k + l] * strain[l];
        after += crystal->strain_weight * change[k] * change[k];
        new_deformation[k] = deformation[k] + change[k];
    }
    for (int k = 0; k < 3 * n; k++)
        after += crystal->move_weights[k / 3] * (moved[k] - moves[k]) * (moved[k] - moves[k]);
    for (int pair = 0; pair < crystal->pairs; pair++) {
        double x[3], y[3], length = moved_pair(crystal, pair, moved, new_deformation, x, y);
        double residual = crystal->distances[pair] - length;
        double near = length < old[pair] ? length : old[pair];
        after += crystal->weights[pair] * residual * residual;
        is_sound &= !(near < limits->least_distance && near < crystal->lengths[pair]);
    }
    /* A comparison with what is not finite is false. */
    if (!(after <= before + limits->tiny) || !is_sound) return 0;
    if (!is_stretched(new_deformation, limits->least_stretch)) return 0;
    memcpy(moves, moved, (size_t)3 * n * sizeof(double));
    memcpy(deformation, new_deformation, sizeof new_deformation);
    return 1;
}
