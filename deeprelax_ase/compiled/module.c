/* Batches of crystals through the network and one step of the joint solve; see `PREDICT_DOC`. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"
#include "step.h"
#include "symmetry.h"

/* One batch: what comes in and what goes out, see `PREDICT_DOC`. */
typedef struct {
    Py_ssize_t crystals;
    const int64_t *num_atoms, *num_pairs, *first, *second;
    const float *scalars, *touching;
    const double *vectors, *lengths, *freedom;
    const uint8_t* fixed;
    double *displacements, *deformations, *displacement_scales, *strain_scales;
    double *distances, *distance_scales;
    uint8_t* solved;
} Batch;

/* Laplace scale of a head's output. */
static double scale_of(const Limits* limits, double raw) {
    raw = raw < limits->least_log_scale ? limits->least_log_scale : raw;
    return exp(raw > limits->most_log_scale ? limits->most_log_scale : raw);
}

/* Certainty of a head's output: softplus. */
static double certainty(const Limits* limits, double raw) {
    return (raw > 0.0 ? raw : 0.0) + log1p(exp(-fabs(raw))) + limits->least_weight;
}

/* What the heads say of a crystal that begins at such an atom and pair of its group. */
static void read_heads(const Network* net, const Group* g, const Limits* limits, int atom, int pair,
                       Crystal* crystal, double* move_scales, double* strain_scale,
                       double* distance_scales) {
    int n = g->atoms, T = net->tensors, count = crystal->atoms;
    double flat[9] = {0}, five[5] = {0}, raw[3] = {0};
    for (int i = 0; i < count; i++) {
        const float* said = g->moves + 5 * (size_t)(atom + i);
        for (int a = 0; a < 3; a++) {
            crystal->moves[3 * i + a] = said[a];
            raw[a] += (double)g->gates[3 * (size_t)(atom + i) + a] / count;
        }
        move_scales[i] = scale_of(limits, said[3]);
        crystal->move_weights[i] = certainty(limits, said[4]);
        for (int b = 0; b < 5; b++)
            for (int c = 0; c < T; c++)
                five[b] += (double)g->tensors[((size_t)b * n + atom + i) * T + c] *
                           net->strain_tensors[c] / count;
    }
    deeprelax_settle(crystal->moves, count, crystal->fixed);
    for (int k = 0; k < crystal->pairs; k++) {
        const float* said = g->edge_out + 4 * (size_t)(pair + k);
        const float* d = g->directions + 3 * (size_t)(pair + k);
        double stretch = said[0] < -1.0f ? -1.0 : said[0] > 1.0f ? 1.0 : said[0];
        double envelope = g->envelope[pair + k], pull = said[1] * envelope / count;
        crystal->distances[k] = crystal->lengths[k] * exp(stretch);
        crystal->weights[k] = certainty(limits, said[3]) * envelope;
        distance_scales[k] = scale_of(limits, said[2]);
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) flat[3 * a + b] += pull * d[a] * d[b];
    }
    flat[0] += raw[0] - SIXTH * five[2] - HALF * five[4];
    flat[4] += raw[0] + 2.0 * SIXTH * five[2];
    flat[8] += raw[0] - SIXTH * five[2] + HALF * five[4];
    flat[2] += HALF * five[0], flat[6] += HALF * five[0];
    flat[1] += HALF * five[1], flat[3] += HALF * five[1];
    flat[5] += HALF * five[3], flat[7] += HALF * five[3];
    for (int k = 0; k < 9; k++) {
        crystal->strain[k] = 0.0;
        for (int l = 0; l < 9; l++) crystal->strain[k] += crystal->freedom[9 * k + l] * flat[l];
    }
    *strain_scale = scale_of(limits, raw[1]);
    crystal->strain_weight = certainty(limits, raw[2]) * count;
}

/* The next group: crystals as long as they have no more pairs together than fit into a cache. */
static Py_ssize_t group_end(const Batch* batch, Py_ssize_t begin, int most, size_t* n, size_t* p) {
    Py_ssize_t end = begin;
    *n = *p = 0;
    while (end < batch->crystals && (end == begin || (int64_t)*p + batch->num_pairs[end] <= most)) {
        *n += (size_t)batch->num_atoms[end];
        *p += (size_t)batch->num_pairs[end++];
    }
    return end;
}

/* Everything of a batch, group by group; 0 if memory is short. */
static int run(const Network* net, const Limits* limits, Batch* batch, int most) {
    size_t n, p, most_atoms = 0, most_pairs = 0, largest = 0, longest = 0, room = 0;
    Py_ssize_t atom = 0, pair = 0;
    Group g;
    float* block;
    double* work;
    int* starts;
    Edge* edges;
    int64_t* ends;
    for (Py_ssize_t begin = 0; begin < batch->crystals;) {
        begin = group_end(batch, begin, most, &n, &p);
        most_atoms = LARGER(most_atoms, n), most_pairs = LARGER(most_pairs, p);
    }
    for (Py_ssize_t k = 0; k < batch->crystals; k++) {
        n = (size_t)batch->num_atoms[k], p = (size_t)batch->num_pairs[k];
        largest = LARGER(largest, n), longest = LARGER(longest, p);
        room = LARGER(room, deeprelax_step_room(n, p));
    }
    block = malloc(deeprelax_lay_out(net, &g, most_atoms, most_pairs, NULL) * sizeof(float));
    work = malloc((room + largest + longest) * sizeof(double));
    starts = malloc((most_atoms + 2) * sizeof(int));
    edges = malloc((2 * most_pairs + 1) * sizeof(Edge));
    ends = malloc((2 * most_pairs + 1) * sizeof(int64_t));
    if (!block || !work || !starts || !edges || !ends) {
        free(block), free(work), free(starts), free(edges), free(ends);
        return 0;
    }
    for (Py_ssize_t begin = 0, end; begin < batch->crystals; begin = end) {
        int own_atom = 0, own_pair = 0;
        end = group_end(batch, begin, most, &n, &p);
        deeprelax_lay_out(net, &g, n, p, block);
        g.atoms = (int)n, g.pairs = (int)p;
        g.start = starts, g.edges = edges;
        g.first = ends, g.second = ends + p;
        for (size_t k = 0; k < p; k++) {
            ends[k] = batch->first[(size_t)pair + k] - atom;
            ends[p + k] = batch->second[(size_t)pair + k] - atom;
        }
        deeprelax_run_network(net, &g, batch->scalars + atom * net->features,
                              batch->vectors + 3 * pair, batch->lengths + pair,
                              batch->touching + pair);
        for (Py_ssize_t k = begin; k < end; k++) {
            Py_ssize_t i = atom + own_atom, j = pair + own_pair;
            Crystal crystal = {
                .atoms = (int)batch->num_atoms[k],
                .pairs = (int)batch->num_pairs[k],
                .base = i,
                .first = batch->first + j,
                .second = batch->second + j,
                .vectors = batch->vectors + 3 * j,
                .lengths = batch->lengths + j,
                .freedom = batch->freedom + 81 * k,
                .fixed = batch->fixed + i,
                .distances = batch->distances + j,
                .weights = work + room,
                .moves = batch->displacements + 3 * i,
                .move_weights = work + room + longest,
                .deformation = batch->deformations + 9 * k,
            };
            read_heads(net, &g, limits, own_atom, own_pair, &crystal,
                       batch->displacement_scales + i, batch->strain_scales + k,
                       batch->distance_scales + j);
            batch->solved[k] = (uint8_t)deeprelax_step(&crystal, limits, work);
            own_atom += crystal.atoms, own_pair += crystal.pairs;
        }
        atom += (Py_ssize_t)n, pair += (Py_ssize_t)p;
    }
    free(block), free(work), free(starts), free(edges), free(ends);
    return 1;
}

static int take_function(const char* module, const char* name, void** target) {
    PyObject *found = PyImport_ImportModule(module), *table = NULL, *capsule = NULL;
    if (found) table = PyObject_GetAttrString(found, "__pyx_capi__");
    if (table) capsule = PyMapping_GetItemString(table, name);
    if (capsule) *target = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    Py_XDECREF(found), Py_XDECREF(table), Py_XDECREF(capsule);
    return capsule != NULL && *target != NULL;
}

static int read_network(PyObject* config, Network* net) {
    memset(net, 0, sizeof *net);
    if (!PyArg_ParseTuple(config, "iiiiiiifff", &net->features, &net->tensors, &net->layers,
                          &net->radial, &net->relative, &net->edge, &net->exponent, &net->cutoff,
                          &net->width, &net->relative_width))
        return 0;
    if (net->layers < 1 || net->layers > MOST_LAYERS) {
        PyErr_SetString(PyExc_ValueError, "too many layers");
        return 0;
    }
    return 1;
}

enum {
    WEIGHTS,
    NUM_ATOMS,
    NUM_PAIRS,
    FIRST,
    SECOND,
    SCALARS,
    TOUCHING,
    VECTORS,
    LENGTHS,
    FREEDOM,
    FIXED,
    INPUTS,
    DISPLACEMENTS = INPUTS,
    DEFORMATIONS,
    DISPLACEMENT_SCALES,
    STRAIN_SCALES,
    DISTANCES,
    DISTANCE_SCALES,
    SOLVED,
    ARRAYS
};

/* Whether all arrays are of the sizes that the first ones say, and pairs are of atoms there are. */
static int is_consistent(const Network* net, const Py_buffer* views) {
    const int64_t *num_atoms = views[NUM_ATOMS].buf, *num_pairs = views[NUM_PAIRS].buf;
    const int64_t *first = views[FIRST].buf, *second = views[SECOND].buf;
    int64_t crystals = views[NUM_ATOMS].len / 8, atoms = 0, pairs = 0, most = views[FIRST].len / 8;
    if (views[NUM_PAIRS].len != 8 * crystals || views[SECOND].len != 8 * most) return 0;
    for (int64_t k = 0; k < crystals; k++) {
        if (num_atoms[k] < 1 || num_pairs[k] < 0 || num_atoms[k] > INT32_MAX / 4 ||
            num_pairs[k] > most - pairs)
            return 0;
        for (int64_t pair = pairs; pair < pairs + num_pairs[k]; pair++)
            if (first[pair] < atoms || first[pair] >= atoms + num_atoms[k] ||
                second[pair] < atoms || second[pair] >= atoms + num_atoms[k])
                return 0;
        atoms += num_atoms[k], pairs += num_pairs[k];
    }
    return pairs == most && views[SCALARS].len == 4 * atoms * net->features &&
           views[TOUCHING].len == 4 * pairs && views[VECTORS].len == 24 * pairs &&
           views[LENGTHS].len == 8 * pairs && views[FREEDOM].len == 648 * crystals &&
           views[FIXED].len == atoms && views[DISPLACEMENTS].len == 24 * atoms &&
           views[DEFORMATIONS].len == 72 * crystals &&
           views[DISPLACEMENT_SCALES].len == 8 * atoms &&
           views[STRAIN_SCALES].len == 8 * crystals && views[DISTANCES].len == 8 * pairs &&
           views[DISTANCE_SCALES].len == 8 * pairs && views[SOLVED].len == crystals &&
           views[WEIGHTS].len == (Py_ssize_t)(4 * deeprelax_read_weights((Network*)net, NULL));
}

static int read_limits(PyObject* given, Limits* limits) {
    return PyArg_ParseTuple(given, "dddddd", &limits->least_log_scale, &limits->most_log_scale,
                            &limits->least_weight, &limits->least_stretch, &limits->least_distance,
                            &limits->tiny);
}

static PyObject* predict(PyObject* self, PyObject* arguments) {
    PyObject *config, *given, *arrays, *result = NULL;
    Py_buffer views[ARRAYS];
    int most, taken = 0, is_done;
    Network net;
    Limits limits;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "O!O!iO!", &PyTuple_Type, &config, &PyTuple_Type, &given,
                          &most, &PyTuple_Type, &arrays))
        return NULL;
    if (!read_network(config, &net) || !read_limits(given, &limits)) return NULL;
    if (PyTuple_GET_SIZE(arrays) != ARRAYS)
        return PyErr_Format(PyExc_ValueError, "%d arrays are needed", ARRAYS);
    for (; taken < ARRAYS; taken++) {
        int flags = taken < INPUTS ? PyBUF_C_CONTIGUOUS : PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE;
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arrays, taken), views + taken, flags)) goto end;
    }
    if (!is_consistent(&net, views)) {
        PyErr_SetString(PyExc_ValueError, "arrays of sizes that do not belong together");
        goto end;
    }
    deeprelax_read_weights(&net, views[WEIGHTS].buf);
    Py_BEGIN_ALLOW_THREADS
    Batch batch = {
        .crystals = views[NUM_ATOMS].len / 8,
        .num_atoms = views[NUM_ATOMS].buf,
        .num_pairs = views[NUM_PAIRS].buf,
        .first = views[FIRST].buf,
        .second = views[SECOND].buf,
        .scalars = views[SCALARS].buf,
        .touching = views[TOUCHING].buf,
        .vectors = views[VECTORS].buf,
        .lengths = views[LENGTHS].buf,
        .freedom = views[FREEDOM].buf,
        .fixed = views[FIXED].buf,
        .displacements = views[DISPLACEMENTS].buf,
        .deformations = views[DEFORMATIONS].buf,
        .displacement_scales = views[DISPLACEMENT_SCALES].buf,
        .strain_scales = views[STRAIN_SCALES].buf,
        .distances = views[DISTANCES].buf,
        .distance_scales = views[DISTANCE_SCALES].buf,
        .solved = views[SOLVED].buf,
    };
    is_done = run(&net, &limits, &batch, most);
    Py_END_ALLOW_THREADS
    if (is_done)
        result = Py_NewRef(Py_None);
    else
        PyErr_NoMemory();
end:
    while (taken > 0) PyBuffer_Release(views + --taken);
    return result;
}

enum {
    STEP_FIRST,
    STEP_SECOND,
    STEP_VECTORS,
    STEP_LENGTHS,
    STEP_FREEDOM,
    STEP_FIXED,
    STEP_WEIGHTS,
    STEP_MOVE_WEIGHTS,
    STEP_STRAIN,
    STEP_DISTANCES,
    STEP_MOVES,
    STEP_DEFORMATION,
    STEP_ARRAYS
};

/* The step alone, for the tests. */
static PyObject* one_step(PyObject* self, PyObject* arguments) {
    static const int OF_PAIRS[] = {8, 8, 24, 8, 0, 0, 8, 0, 0, 8, 0, 0};
    static const int OF_ATOMS[] = {0, 0, 0, 0, 0, 1, 0, 8, 0, 0, 24, 0};
    static const int OF_ALL[] = {0, 0, 0, 0, 648, 0, 0, 0, 72, 0, 0, 72};
    PyObject *given, *arrays, *result = NULL;
    Py_buffer views[STEP_ARRAYS];
    Limits limits;
    Crystal crystal = {0};
    double* work = NULL;
    int taken = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "O!dO!", &PyTuple_Type, &given, &crystal.strain_weight,
                          &PyTuple_Type, &arrays))
        return NULL;
    if (!read_limits(given, &limits)) return NULL;
    if (PyTuple_GET_SIZE(arrays) != STEP_ARRAYS)
        return PyErr_Format(PyExc_ValueError, "%d arrays are needed", STEP_ARRAYS);
    for (; taken < STEP_ARRAYS; taken++)
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arrays, taken), views + taken,
                               PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE))
            goto end;
    crystal.pairs = (int)(views[STEP_FIRST].len / 8), crystal.atoms = (int)views[STEP_FIXED].len;
    for (int k = 0; k < STEP_ARRAYS; k++)
        if (views[k].len != (Py_ssize_t)OF_PAIRS[k] * crystal.pairs +
                                (Py_ssize_t)OF_ATOMS[k] * crystal.atoms + OF_ALL[k]) {
            PyErr_SetString(PyExc_ValueError, "arrays of sizes that do not belong together");
            goto end;
        }
    crystal.first = views[STEP_FIRST].buf, crystal.second = views[STEP_SECOND].buf;
    for (int k = 0; k < crystal.pairs; k++)
        if (crystal.first[k] < 0 || crystal.first[k] >= crystal.atoms || crystal.second[k] < 0 ||
            crystal.second[k] >= crystal.atoms) {
            PyErr_SetString(PyExc_ValueError, "a pair is of atoms that are not there");
            goto end;
        }
    crystal.vectors = views[STEP_VECTORS].buf, crystal.lengths = views[STEP_LENGTHS].buf;
    crystal.freedom = views[STEP_FREEDOM].buf, crystal.fixed = views[STEP_FIXED].buf;
    crystal.weights = views[STEP_WEIGHTS].buf, crystal.distances = views[STEP_DISTANCES].buf;
    crystal.move_weights = views[STEP_MOVE_WEIGHTS].buf, crystal.moves = views[STEP_MOVES].buf;
    crystal.deformation = views[STEP_DEFORMATION].buf;
    memcpy(crystal.strain, views[STEP_STRAIN].buf, sizeof crystal.strain);
    work =
        malloc(deeprelax_step_room((size_t)crystal.atoms, (size_t)crystal.pairs) * sizeof(double));
    if (work)
        result = PyBool_FromLong(deeprelax_step(&crystal, &limits, work));
    else
        PyErr_NoMemory();
    free(work);
end:
    while (taken > 0) PyBuffer_Release(views + --taken);
    return result;
}

static PyObject* find_operations(PyObject* self, PyObject* arguments) {
    Py_buffer basis, scaled, numbers;
    Operations found;
    PyObject* result = NULL;
    double symprec;
    int is_done;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "y*y*y*d", &basis, &scaled, &numbers, &symprec)) return NULL;
    if (basis.len != 72 || numbers.len < 8 || numbers.len % 8 || scaled.len != 3 * numbers.len) {
        PyErr_SetString(PyExc_ValueError, "arrays of sizes that do not belong together");
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    is_done = deeprelax_find_operations(basis.buf, scaled.buf, numbers.buf, (int)(numbers.len / 8),
                                        symprec, &found);
    Py_END_ALLOW_THREADS
    if (is_done)
        result = Py_BuildValue("iOy#y#y#", found.translations, found.is_group ? Py_True : Py_False,
                               (char*)found.rotations, (Py_ssize_t)72 * found.count,
                               (char*)found.vectors, (Py_ssize_t)24 * found.count,
                               (char*)found.images, found.count * numbers.len);
    else
        PyErr_NoMemory();
    free(found.rotations), free(found.vectors), free(found.images);
end:
    PyBuffer_Release(&basis), PyBuffer_Release(&scaled), PyBuffer_Release(&numbers);
    return result;
}

static PyObject* average(PyObject* self, PyObject* arguments) {
    Py_buffer rotations, vectors, images, scaled, mean;
    PyObject* result = NULL;
    Py_ssize_t count, atoms;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*w*", &rotations, &vectors, &images, &scaled, &mean))
        return NULL;
    count = vectors.len / 24, atoms = scaled.len / 24;
    int is_consistent = vectors.len == 24 * count && scaled.len == 24 * atoms &&
                        rotations.len == 72 * count && images.len == 8 * count * atoms &&
                        mean.len == scaled.len;
    for (Py_ssize_t k = 0; k < count * atoms && is_consistent; k++)
        is_consistent = ((int64_t*)images.buf)[k] >= 0 && ((int64_t*)images.buf)[k] < atoms;
    if (is_consistent) {
        deeprelax_average(rotations.buf, vectors.buf, images.buf, (int)count, scaled.buf,
                          (int)atoms, mean.buf);
        result = Py_NewRef(Py_None);
    } else {
        PyErr_SetString(PyExc_ValueError, "arrays of sizes that do not belong together");
    }
    PyBuffer_Release(&rotations), PyBuffer_Release(&vectors), PyBuffer_Release(&images);
    PyBuffer_Release(&scaled), PyBuffer_Release(&mean);
    return result;
}

PyDoc_STRVAR(
    PREDICT_DOC,
    "What network and one step of the solve make of crystals.\n\n"
    "Args:\n"
    "    layout: Of the network, see compiled_weights.layout_of.\n"
    "    limits: compiled_weights.LIMITS.\n"
    "    most_pairs: Of the crystals that go through the layers together, or one alone.\n"
    "    arrays: C-contiguous. Inputs: the block of weights (float32); atoms and pairs of each\n"
    "        crystal (int64); first and second atom of each pair (int64), crystal by crystal, "
    "atoms\n"
    "        counted through; what the scalars of each atom begin as (atoms, F; float32); sum of "
    "the\n"
    "        radii of each pair (float32); vectors (pairs, 3) and lengths of the pairs, in "
    "angstrom\n"
    "        (float64); Crystal.strain_freedom (crystals, 9, 9; float64); whether each atom is "
    "fixed\n"
    "        (uint8). Outputs: displacements (atoms, 3), deformations (crystals, 3, 3), scales of\n"
    "        the displacements and of the strains, distances and their scales (float64); whether\n"
    "        each crystal was solved (uint8).\n\n"
    "Raises:\n"
    "    ValueError: Sizes do not belong together, or a pair is of two crystals.\n"
    "    MemoryError: There is not enough.");

PyDoc_STRVAR(
    STEP_DOC,
    "One step of the solve for one crystal: whether it is sound and a gain.\n\n"
    "Args:\n"
    "    limits: compiled_weights.LIMITS.\n"
    "    strain_weight: Certainty of the strain.\n"
    "    arrays: C-contiguous. Inputs: first and second atom of each pair (int64), vectors, "
    "lengths,\n"
    "        freedom and fixed atoms as for predict, weights of the pairs and of the "
    "displacements,\n"
    "        strain (3, 3), distances. Changed: displacements (atoms, 3). Output: the deformation\n"
    "        (3, 3).\n\n"
    "Raises:\n"
    "    ValueError: Sizes do not belong together.");

PyDoc_STRVAR(FIND_OPERATIONS_DOC,
             "Operations that map a crystal onto itself.\n\n"
             "Args:\n"
             "    basis: Reduced cell, row vectors (3, 3; float64).\n"
             "    scaled: Fractional coordinates in it (atoms, 3; float64).\n"
             "    numbers: What tells atoms apart (atoms; int64).\n"
             "    symprec: How far atoms may be from their images.\n\n"
             "Returns:\n"
             "    How many are pure translations, which come first; whether the rotations are a "
             "group; bytes\n"
             "    of the rotations (operations, 3, 3) and translations (operations, 3; float64), "
             "and of the\n"
             "    atom that each takes each atom to (operations, atoms; int64).\n\n"
             "Raises:\n"
             "    ValueError: Sizes do not belong together.");

PyDoc_STRVAR(AVERAGE_DOC,
             "Mean over operations of the images of all atoms, each taken to its own atom.\n\n"
             "Args:\n"
             "    rotations: (operations, 3, 3); float64, as all but the images.\n"
             "    translations: (operations, 3).\n"
             "    images: Atom that each operation takes each atom to (operations, atoms; int64).\n"
             "    scaled: Fractional coordinates (atoms, 3).\n"
             "    mean: The result (atoms, 3).\n\n"
             "Raises:\n"
             "    ValueError: Sizes do not belong together, or there is no such atom.");

static PyMethodDef METHODS[] = {
    {"predict", predict, METH_VARARGS, PREDICT_DOC},
    {"step", one_step, METH_VARARGS, STEP_DOC},
    {"find_operations", find_operations, METH_VARARGS, FIND_OPERATIONS_DOC},
    {"average", average, METH_VARARGS, AVERAGE_DOC},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    "_core",
    "PaEGNN, one step of the joint solve, and space groups.",
    -1,
    METHODS,
    NULL,
    NULL,
    NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__core(void) {
    if (!take_function("scipy.linalg.cython_blas", "sgemm", (void**)&deeprelax_gemm) ||
        !take_function("scipy.linalg.cython_lapack", "dposv", (void**)&deeprelax_posv)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ImportError, "scipy has no BLAS for C");
        return NULL;
    }
    PyObject* module = PyModule_Create(&MODULE);
    if (module && PyModule_AddIntConstant(module, "MOST_LAYERS", MOST_LAYERS)) Py_CLEAR(module);
    return module;
}
