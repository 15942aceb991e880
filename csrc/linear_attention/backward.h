// Backward pass of one (batch, head) pair. With g = grad_out, gn_i = g_i / den_i, gd_i = -(g_i . out_i) /
// den_i:
//   grad phi(q_i) = S_i gn_i + z_i gd_i
//   grad phi(k_j) = T_j v_j + t_j        T_j = sum_{i >= j} phi(q_i) gn_i^T,  t_j = sum_{i >= j} phi(q_i)
//   gd_i grad v_j      = T_j^T phi(k_j)
// z and gd become one more column: v' = (v, 1), S' = (S, z), gn' = (gn, gd), T' = (T, t). A pass from the
// left makes the gradient of q with a running S', one from the right those of k and v with a running T'; phi
// is computed anew in both, so nothing but the denominators is kept for the whole sequence.
#pragma once

#include "linear_attention/forward.h"

namespace asi::linear_attention {
namespace {

constexpr std::int64_t kBackwardChunk = ASI_BACKWARD_CHUNK;

template <class S>
struct BackwardPass {
    using T = Accumulator<S>;
    static constexpr std::int64_t w = kWidth<T>, size = sizeof(S);

    const BackwardParams& params;
    const Shape& shape;
    std::int64_t chunk, wide, value_row, chunk_row, extended;  // extended: d_v + 1
    FeatureMap<T> phi;
    T *q, *k, *phi_q, *phi_k, *phi_kt, *v, *v_t, *g, *products, *scores, *grad_phi;
    T *state_t, *adjoint_t, *adjoint, *denominators, *running_z, *grad_w, *grad_b;

    BackwardPass(const BackwardParams& p, Arena& arena) : params(p), shape(p.shape) {
        chunk = smaller(kBackwardChunk, round_up(larger(shape.length, 1), w));
        extended = shape.d_v + 1;
        wide = row_length<T>(larger(shape.d_k, shape.d_phi));
        value_row = row_length<T>(extended);
        chunk_row = row_length<T>(chunk);
        phi.place(arena, shape, p.phi);
        q = arena.matrix<T>(chunk, wide);
        k = arena.matrix<T>(chunk, wide);
        phi_q = phi.mapped ? arena.matrix<T>(chunk, wide) : q;
        phi_k = phi.mapped ? arena.matrix<T>(chunk, wide) : k;
        phi_kt = arena.matrix<T>(shape.d_phi, chunk_row);
        v = arena.matrix<T>(chunk, value_row);
        v_t = arena.matrix<T>(extended, chunk_row);
        g = arena.matrix<T>(chunk, value_row);
        products = arena.matrix<T>(chunk, chunk_row);
        scores = arena.matrix<T>(chunk, chunk_row);
        grad_phi = arena.matrix<T>(chunk, wide);
        state_t = arena.matrix<T>(extended, wide);
        adjoint_t = arena.matrix<T>(extended, wide);
        adjoint = arena.matrix<T>(larger(shape.d_phi, w), value_row);
        denominators = arena.take<T>(shape.length);
        running_z = arena.take<T>(wide);
        grad_w = phi.mapped ? arena.matrix<T>(shape.d_phi, wide) : nullptr;
        grad_b = arena.take<T>(wide);
    }

    void run(std::int64_t index) {
        const std::int64_t b = index / shape.heads, h = index % shape.heads;
        phi.read(params.phi, h);
        const View* const views[] = {&params.q, &params.k, &params.v, &params.out, &params.grad_out};
        for (int t = 0; t < 5; ++t)
            inputs.data[t] = slice<S>(*views[t], b, h), inputs.row[t] = views[t]->stride[2];
        read_transposed(params.initial, index, state_t);
        read_transposed(params.grad_final, index, adjoint_t);
        const std::int64_t chunks = (shape.length + chunk - 1) / chunk;
        if (!params.causal)
            for (std::int64_t c = 0; c < chunks; ++c) {
                read_keys(b, h, c * chunk, length_of(c));
                read_values(b, h, c * chunk, length_of(c));
                add_to_state(length_of(c), (c + 1) * chunk);
            }
        for (std::int64_t c = 0; c < chunks; ++c) query_chunk(b, h, c * chunk, length_of(c));
        refresh_adjoint();
        for (std::int64_t c = chunks; c-- > 0;) key_chunk(b, h, c * chunk, length_of(c));
        write_state(params.grad_initial, shape, index, adjoint, value_row, adjoint_t + shape.d_v * wide);
        write_weight_gradients(index);
    }

  private:
    struct Inputs {
        const S* data[5];
        std::int64_t row[5];
    };
    Inputs inputs{};  // of this pair, to fetch from

    std::int64_t length_of(std::int64_t c) const { return smaller(chunk, shape.length - c * chunk); }

    // S'^T or T'^T: transposed, z or t after the last row. `adjoint` is free until the second pass.
    void read_transposed(const ConstState& from, std::int64_t index, T* to) {
        read_state(from, shape, index, adjoint, value_row, running_z);
        transpose(adjoint, value_row, shape.d_phi, shape.d_v, to, wide);
        for (std::int64_t p = 0; p < shape.d_phi; ++p) to[shape.d_v * wide + p] = running_z[p];
    }

    void read_queries(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        const auto& stride = params.q.stride;
        pack(slice<S>(params.q, b, h) + start * stride[2], stride[2], stride[3], n, shape.d_k, q, wide);
        if (phi.mapped) phi.by_rows(q, wide, n, phi_q, wide);
    }

    void read_keys(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        const auto& stride = params.k.stride;
        pack(slice<S>(params.k, b, h) + start * stride[2], stride[2], stride[3], n, shape.d_k, k, wide);
        if (phi.mapped) phi.by_rows(k, wide, n, phi_k, wide);
    }

    // v'^T
    void read_values(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        const auto& stride = params.v.stride;
        pack(slice<S>(params.v, b, h) + start * stride[2], stride[2], stride[3], n, shape.d_v, v, value_row);
        for (std::int64_t j = 0; j < n; ++j) v[j * value_row + shape.d_v] = T(1);
        transpose(v, value_row, n, extended, v_t, chunk_row);
    }

    // gn' of a chunk; the denominators are known
    void read_gradients(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        const auto& gs = params.grad_out.stride;
        const auto& os = params.out.stride;
        const S* from = slice<S>(params.grad_out, b, h) + start * gs[2];
        const S* out = slice<S>(params.out, b, h) + start * os[2];
        pack(from, gs[2], gs[3], n, shape.d_v, g, value_row);
        const std::int64_t whole = os[3] == 1 ? shape.d_v / w * w : 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const T scale = T(1) / denominators[start + i];
            T* row = g + i * value_row;
            const S* o = out + i * os[2];
            Vec<T> total{};
            for (std::int64_t e = 0; e < whole; e += w) {
                const Vec<T> x = load(row + e);
                total += x * load_wide(o + e);
                store(row + e, x * scale);
            }
            T dot = sum<T>(total);
            for (std::int64_t e = whole; e < shape.d_v; ++e) {
                dot += row[e] * widen(o[e * os[3]]);
                row[e] *= scale;
            }
            row[shape.d_v] = -dot * scale;
        }
    }

    // den_i = phi(q_i) . z_i + eps with z running within the chunk
    void read_denominators(std::int64_t start, std::int64_t n) {
        const T* z = state_t + shape.d_v * wide;
        const std::int64_t whole = shape.d_phi / w * w;
        for (std::int64_t p = 0; p < shape.d_phi; ++p) running_z[p] = z[p];
        for (std::int64_t i = 0; i < n; ++i) {
            const T* kp = phi_k + i * wide;
            const T* qp = phi_q + i * wide;
            Vec<T> total{};
            for (std::int64_t p = 0; p < whole; p += w) {
                Vec<T> zp = load(running_z + p);
                if (params.causal) zp += load(kp + p);
                store(running_z + p, zp);
                total += load(qp + p) * zp;
            }
            T den = sum<T>(total) + static_cast<T>(params.eps);
            for (std::int64_t p = whole; p < shape.d_phi; ++p) {
                if (params.causal) running_z[p] += kp[p];
                den += qp[p] * running_z[p];
            }
            denominators[start + i] = den;
        }
    }

    // target[e] += sum_j rows[j][e] phi[j] for the d_v values, and for what follows them: a tile for that one
    // row would cost as much as for kRows of them. Meanwhile rows [next, next + n) of the inputs are fetched.
    void add_outer(T* target, const Term<T>& values, const T* last, std::int64_t last_step,
                   std::int64_t next) {
        const Inputs from = inputs;
        const std::int64_t n = values.k;
        const bool alone = shape.d_v % kRows == 0;  // else a tile reaches beyond the d_v rows in any case
        accumulate<T>(target, wide, alone ? shape.d_v : extended, shape.d_phi, values,
                      [=](std::int64_t i, std::int64_t c) ASI_LAMBDA {
                          if (i >= n) return;
                          for (int t = 0; t < 5; ++t)
                              prefetch(from.data[t], ((next + i) * from.row[t] + c) * size);
                      });
        if (!alone) return;
        T* const row = target + shape.d_v * wide;
        for (std::int64_t p = 0; p < shape.d_phi; p += w) {
            Vec<T> total = load(row + p);
            for (std::int64_t j = 0; j < n; ++j) total += last[j * last_step] * load(values.b + j * wide + p);
            store(row + p, total);
        }
    }

    void add_to_state(std::int64_t n, std::int64_t next) {
        add_outer(state_t, {v_t, chunk_row, 1, phi_k, wide, n, Part::all}, v_t + shape.d_v * chunk_row, 1,
                  next);
    }

    void add_to_adjoint(std::int64_t n, std::int64_t next) {
        add_outer(adjoint_t, {g, 1, value_row, phi_q, wide, n, Part::all}, g + shape.d_v, value_row, next);
    }

    void refresh_adjoint() { transpose(adjoint_t, wide, shape.d_v, shape.d_phi, adjoint, value_row); }

    void query_chunk(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        read_queries(b, h, start, n);
        if (params.causal) {
            read_keys(b, h, start, n);
            read_values(b, h, start, n);
        }
        read_denominators(start, n);
        read_gradients(b, h, start, n);
        if (params.causal)
            lower_product<T>(products, chunk_row, n, {g, value_row, 1, v_t, chunk_row, extended, Part::all});
        const Term<T> inside{products, chunk_row, 1, phi_k, wide, params.causal ? n : 0, Part::lower};
        const Term<T> before{g, value_row, 1, state_t, wide, extended, Part::all};
        through_features(inside, before, q, phi_q, slice_out<S>(params.grad_q, b, h), params.grad_q.stride[2],
                         start, n, n);
        if (params.causal)
            add_to_state(n, start + n);
        else
            add_to_adjoint(n, start + n);
    }

    void key_chunk(std::int64_t b, std::int64_t h, std::int64_t start, std::int64_t n) {
        read_keys(b, h, start, n);
        read_values(b, h, start, n);
        if (params.causal) {
            read_queries(b, h, start, n);
            read_gradients(b, h, start, n);
            lower_product<T>(products, chunk_row, n, {g, value_row, 1, v_t, chunk_row, extended, Part::all});
            transpose(phi_k, wide, n, shape.d_phi, phi_kt, chunk_row);
            lower_product<T>(scores, chunk_row, n,
                             {phi_q, wide, 1, phi_kt, chunk_row, shape.d_phi, Part::all});
        }
        const std::int64_t inner = params.causal ? n : 0;
        const Term<T> inside{products, 1, chunk_row, phi_q, wide, inner, Part::upper};
        const Term<T> after{v_t, 1, chunk_row, adjoint_t, wide, extended, Part::all};
        through_features(inside, after, k, phi_k, slice_out<S>(params.grad_k, b, h), params.grad_k.stride[2],
                         start, n, -n);

        const std::int64_t out_row = params.grad_v.stride[2], d_v = shape.d_v;
        S* const to = slice_out<S>(params.grad_v, b, h) + start * out_row;
        const Term<T> value_inside{scores, 1, chunk_row, g, value_row, inner, Part::upper};
        const Term<T> value_after{phi_k, wide, 1, adjoint, value_row, shape.d_phi, Part::all};
        gemm<T>(n, d_v, value_inside, value_after, false, Zero<T>{},
                [=](std::int64_t i, std::int64_t c, Vec<T> x) ASI_LAMBDA {
                    if (i < n) store_part(to + i * out_row + c, x, d_v - c);
                    prefetch<true>(to, ((i - n) * out_row + c) * size);
                });
        if (params.causal) {
            add_to_adjoint(n, start - chunk);
            refresh_adjoint();
        }
    }

    // Gradient of phi(x) = a + b, on to x, W and the bias. The rows of grad_x written `next` rows further are
    // fetched.
    void through_features(const Term<T>& a, const Term<T>& b, const T* x, const T* phi_x, S* grad_x,
                          std::int64_t grad_row, std::int64_t start, std::int64_t n, std::int64_t next) {
        const std::int64_t row = wide, d_k = shape.d_k, d_phi = shape.d_phi;
        S* const to = grad_x + start * grad_row;
        if (!phi.mapped) {
            gemm<T>(n, d_k, a, b, false, Zero<T>{}, [=](std::int64_t i, std::int64_t c, Vec<T> y) ASI_LAMBDA {
                if (i < n) store_part(to + i * grad_row + c, y, d_k - c);
                prefetch<true>(to, ((i + next) * grad_row + c) * size);
            });
            return;
        }
        T* const u = grad_phi;
        gemm<T>(n, d_phi, a, b, false, Zero<T>{}, [=](std::int64_t i, std::int64_t c, Vec<T> y) ASI_LAMBDA {
            store(u + i * row + c, y * elu_slope<T>(load(phi_x + i * row + c)));
        });
        gemm<T>(n, d_k, Term<T>{u, row, 1, phi.w, phi.w_row, d_phi, Part::all}, Term<T>{}, false, Zero<T>{},
                [=](std::int64_t i, std::int64_t c, Vec<T> y) ASI_LAMBDA {
                    if (i < n) store_part(to + i * grad_row + c, y, d_k - c);
                    prefetch<true>(to, ((i + next) * grad_row + c) * size);
                });
        accumulate<T>(grad_w, row, d_phi, d_k, {u, 1, row, x, row, n, Part::all});
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t p = 0; p < d_phi; p += w)
                store(grad_b + p, load(grad_b + p) + load(u + i * row + p));
    }

    void write_weight_gradients(std::int64_t index) {
        T* const to_w = static_cast<T*>(params.grad_weight);
        T* const to_b = static_cast<T*>(params.grad_bias);
        if (phi.mapped && to_w)
            pack<T>(grad_w, wide, 1, shape.d_phi, shape.d_k, to_w + index * shape.d_phi * shape.d_k,
                    shape.d_k);
        if (phi.mapped && to_b)
            pack<T>(grad_b, wide, 1, 1, shape.d_phi, to_b + index * shape.d_phi, shape.d_phi);
    }
};

template <class S>
std::size_t backward_scratch_as(const BackwardParams& params) {
    Arena arena;
    BackwardPass<S> pass(params, arena);
    return arena.used;
}

template <class S>
void backward_as(const BackwardParams& params, std::int64_t index, std::byte* scratch) {
    Arena arena{scratch};
    BackwardPass<S> pass(params, arena);
    // The weight gradients are summed over the sequence; scratch is used again for other sequences.
    if (pass.phi.mapped) {
        for (std::int64_t i = 0; i < params.shape.d_phi * pass.wide; ++i) pass.grad_w[i] = 0;
        for (std::int64_t i = 0; i < pass.wide; ++i) pass.grad_b[i] = 0;
    }
    pass.run(index);
}

}  // namespace
}  // namespace asi::linear_attention
