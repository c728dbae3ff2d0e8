// The sum over neighbors of Nequix's tensor product, forwards and backwards, for one core.
//
// out[i, p, b, u] = sum over neighbors j and a of  M[ij, p, a, b] * W[ij, p, u] * X[j, p, a, u]
//
// Nothing as large as edges times channels is ever stored. Rows of `paths` are: offset in X, channels, components
// before (a), components after (b), offset in W, offset in M, offset in out, parity of M.
#include <cstdint>
#include <type_traits>

namespace {
enum { X0, MUL, A, B, W0, M0, OUT0, PARITY, FIELDS };

template <int NA, int NB>
void forward_path(int64_t mul, const float* __restrict m, float sign, const float* __restrict w, const float* __restrict x, float* __restrict out) {
  float c[NA * NB];
  for (int k = 0; k < NA * NB; ++k) c[k] = sign * m[k];
  for (int64_t u = 0; u < mul; ++u) {
    float wx[NA];
    for (int a = 0; a < NA; ++a) wx[a] = w[u] * x[a * mul + u];
    for (int b = 0; b < NB; ++b) {
      float sum = 0;
      for (int a = 0; a < NA; ++a) sum += c[a * NB + b] * wx[a];
      out[b * mul + u] += sum;
    }
  }
}

template <int NA, int NB>
void backward_path(int64_t mul, const float* __restrict m, float sign, const float* __restrict w, const float* __restrict x, const float* __restrict g,
                   float* __restrict gm, float* __restrict gw, float* __restrict gx) {
  float c[NA * NB];
  for (int k = 0; k < NA * NB; ++k) c[k] = sign * m[k];
  for (int64_t u = 0; u < mul; ++u) {
    float sum = 0;
    for (int a = 0; a < NA; ++a) {
      float part = 0;
      for (int b = 0; b < NB; ++b) part += c[a * NB + b] * g[b * mul + u];
      sum += part * x[a * mul + u];
      gx[a * mul + u] += part * w[u];
    }
    gw[u] += sum;
  }
  float wx[512];
  for (int a = 0; a < NA; ++a) {
    for (int64_t u = 0; u < mul; ++u) wx[u] = w[u] * x[a * mul + u];
    for (int b = 0; b < NB; ++b) {
      float sum = 0;
      for (int64_t u = 0; u < mul; ++u) sum += wx[u] * g[b * mul + u];
      gm[a * NB + b] += sign * sum;
    }
  }
}

template <typename F>
void with_sizes(int a, int b, F&& f) {
#define CASE(NA, NB) \
  if (a == NA && b == NB) return f(std::integral_constant<int, NA>(), std::integral_constant<int, NB>());
  CASE(1, 1) CASE(1, 3) CASE(1, 5) CASE(1, 7) CASE(3, 1) CASE(3, 3) CASE(3, 5) CASE(3, 7)
  CASE(5, 1) CASE(5, 3) CASE(5, 5) CASE(5, 7) CASE(7, 1) CASE(7, 3) CASE(7, 5) CASE(7, 7)
#undef CASE
}

struct Graph {
  int64_t atoms, width, pairs;
  const int64_t *neighbors, *pair;  // atoms x width; padding has a pair behind the last
  const uint8_t* reverse;

  template <typename F>
  void for_each_edge(F&& f) const {
    for (int64_t i = 0; i < atoms; ++i)
      for (int64_t k = i * width; k < (i + 1) * width && pair[k] < pairs; ++k) f(i, neighbors[k], pair[k], reverse[k]);
  }
};

struct Paths {
  int64_t count, x_size, w_size, m_size, out_size;
  const int64_t* rows;
};
}  // namespace

extern "C" void couple(const Graph* graph, const Paths* paths, const float* x, const float* w, const float* m,
                       float* out) {
  graph->for_each_edge([&](int64_t i, int64_t j, int64_t pair, bool back) {
    for (int64_t k = 0; k < paths->count; ++k) {
      const int64_t* p = paths->rows + k * FIELDS;
      with_sizes(p[A], p[B], [&](auto a, auto b) {
        forward_path<a, b>(p[MUL], m + pair * paths->m_size + p[M0], back ? p[PARITY] : 1,
                           w + pair * paths->w_size + p[W0], x + j * paths->x_size + p[X0],
                           out + i * paths->out_size + p[OUT0]);
      });
    }
  });
}

extern "C" void couple_backward(const Graph* graph, const Paths* paths, const float* x, const float* w, const float* m,
                                const float* g, float* gx, float* gw, float* gm) {
  graph->for_each_edge([&](int64_t i, int64_t j, int64_t pair, bool back) {
    for (int64_t k = 0; k < paths->count; ++k) {
      const int64_t* p = paths->rows + k * FIELDS;
      with_sizes(p[A], p[B], [&](auto a, auto b) {
        backward_path<a, b>(p[MUL], m + pair * paths->m_size + p[M0], back ? p[PARITY] : 1,
                            w + pair * paths->w_size + p[W0], x + j * paths->x_size + p[X0],
                            g + i * paths->out_size + p[OUT0], gm + pair * paths->m_size + p[M0],
                            gw + pair * paths->w_size + p[W0], gx + j * paths->x_size + p[X0]);
      });
    }
  });
}
