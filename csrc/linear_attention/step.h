// One token of one (batch, head) pair (Katharopoulos et al. 2020, equations 18 to 20): bound by reading and
// writing S once, so update and product with phi(q) share the loop.
#pragma once

#include "linear_attention/forward.h"

namespace asi::linear_attention {
namespace {

template <class S>
struct StepPass {
    using T = Accumulator<S>;
    static constexpr std::int64_t w = kWidth<T>;

    const StepParams& params;
    const Shape& shape;
    T *q, *k, *v, *phi_q, *phi_k, *total;

    StepPass(const StepParams& p, Arena& arena) : params(p), shape(p.shape) {
        q = arena.take<T>(shape.d_k);
        k = arena.take<T>(shape.d_k);
        v = arena.take<T>(shape.d_v);
        phi_q = arena.take<T>(shape.d_phi + w);
        phi_k = arena.take<T>(shape.d_phi + w);
        total = arena.take<T>(shape.d_v);
    }

    void run(std::int64_t index) {
        const std::int64_t b = index / shape.heads, h = index % shape.heads;
        const std::int64_t d_k = shape.d_k, d_phi = shape.d_phi, d_v = shape.d_v;
        const bool mapped = params.phi.weight != nullptr;
        pack(slice<S>(params.q, b, h), 0, params.q.stride[3], 1, d_k, mapped ? q : phi_q, 0);
        pack(slice<S>(params.k, b, h), 0, params.k.stride[3], 1, d_k, mapped ? k : phi_k, 0);
        pack(slice<S>(params.v, b, h), 0, params.v.stride[3], 1, d_v, v, 0);
        if (mapped) map(h);

        const T* s = static_cast<const T*>(params.initial.s) + index * d_phi * d_v;
        const T* z = static_cast<const T*>(params.initial.z) + index * d_phi;
        T* new_s = static_cast<T*>(params.final.s) + index * d_phi * d_v;
        T* new_z = static_cast<T*>(params.final.z) + index * d_phi;
        T normaliser = static_cast<T>(params.eps);
        for (std::int64_t p = 0; p < d_phi; ++p) {
            new_z[p] = z[p] + phi_k[p];
            normaliser += phi_q[p] * new_z[p];
        }
        std::int64_t e = 0;
        for (; e + 4 * w <= d_v; e += 4 * w) columns<4>(s + e, new_s + e, e);
        for (; e + w <= d_v; e += w) columns<1>(s + e, new_s + e, e);
        for (; e < d_v; ++e) {
            T dot{};
            for (std::int64_t p = 0; p < d_phi; ++p) {
                const T x = s[p * d_v + e] + phi_k[p] * v[e];
                new_s[p * d_v + e] = x;
                dot += phi_q[p] * x;
            }
            total[e] = dot;
        }
        S* out = slice_out<S>(params.out, b, h);
        for (std::int64_t i = 0; i < d_v; ++i) narrow(total[i] / normaliser, out + i);
    }

  private:
    template <int N>
    void columns(const T* s, T* new_s, std::int64_t e) {
        Vec<T> dots[N], values[N];
        for (int n = 0; n < N; ++n) dots[n] = Vec<T>{}, values[n] = load(v + e + n * w);
        for (std::int64_t p = 0; p < shape.d_phi; ++p) {
            const Vec<T> key = splat(phi_k[p]), query = splat(phi_q[p]);
            for (int n = 0; n < N; ++n) {
                const Vec<T> x = load(s + p * shape.d_v + n * w) + key * values[n];
                store(new_s + p * shape.d_v + n * w, x);
                dots[n] += query * x;
            }
        }
        for (int n = 0; n < N; ++n) store(total + e + n * w, dots[n]);
    }

    void map(std::int64_t head) {
        const std::int64_t d_k = shape.d_k, whole = d_k / w * w;
        const T* weight = static_cast<const T*>(params.phi.weight) + head * params.phi.weight_head;
        const T* bias = static_cast<const T*>(params.phi.bias);
        if (bias) bias += head * params.phi.bias_head;
        std::int64_t p = 0;
        for (; whole == d_k && p + w <= shape.d_phi;
             p += w) {  // w rows at a time: their sums make one vector
            Vec<T> of_q[w], of_k[w];
            for (int r = 0; r < w; ++r) {
                const T* row = weight + (p + r) * d_k;
                of_q[r] = of_k[r] = Vec<T>{};
                for (std::int64_t d = 0; d < whole; d += w) {
                    const Vec<T> x = load(row + d);
                    of_q[r] += x * load(q + d);
                    of_k[r] += x * load(k + d);
                }
            }
            const Vec<T> b = bias ? load(bias + p) : Vec<T>{};
            store(phi_q + p, sums_of<T>(of_q) + b);
            store(phi_k + p, sums_of<T>(of_k) + b);
        }
        for (; p < shape.d_phi; ++p) {
            const T* row = weight + p * d_k;
            Vec<T> of_q{}, of_k{};
            for (std::int64_t d = 0; d < whole; d += w) {
                const Vec<T> x = load(row + d);
                of_q += x * load(q + d);
                of_k += x * load(k + d);
            }
            T uq = sum<T>(of_q), uk = sum<T>(of_k);
            for (std::int64_t d = whole; d < d_k; ++d) uq += row[d] * q[d], uk += row[d] * k[d];
            phi_q[p] = uq + (bias ? bias[p] : T(0));
            phi_k[p] = uk + (bias ? bias[p] : T(0));
        }
        for (p = 0; p < shape.d_phi; p += w) {
            store(phi_q + p, elu_plus_one<T>(load(phi_q + p)));
            store(phi_k + p, elu_plus_one<T>(load(phi_k + p)));
        }
    }
};

template <class S>
std::size_t step_scratch_as(const StepParams& params) {
    Arena arena;
    StepPass<S> pass(params, arena);
    return arena.used;
}

template <class S>
void step_as(const StepParams& params, std::int64_t index, std::byte* scratch) {
    Arena arena{scratch};
    StepPass<S>(params, arena).run(index);
}

}  // namespace
}  // namespace asi::linear_attention
