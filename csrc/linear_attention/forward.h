// Forward pass of one (batch, head) pair, chunk by chunk:
//   scores = tril(phi(Q) phi(K)^T),  out = (scores V + phi(Q) S) / (rowsum(scores) + phi(Q) z + eps),
//   S += phi(K)^T V,  z += phi(K)^T 1
#pragma once

#include "linear_attention/gemm.h"

namespace asi::linear_attention {
namespace {

constexpr std::int64_t kForwardChunk = ASI_FORWARD_CHUNK;

template <class S>
ASI_INLINE const S* slice(const View& view, std::int64_t b, std::int64_t h) {
    return static_cast<const S*>(view.data) + b * view.stride[0] + h * view.stride[1];
}
template <class S>
ASI_INLINE S* slice_out(const View& view, std::int64_t b, std::int64_t h) {
    return static_cast<S*>(view.data) + b * view.stride[0] + h * view.stride[1];
}

template <class T>
struct Matrix {
    const T* data;
    std::int64_t row;
};

// Rows [start, start + n) of a tensor in the accumulation type: where they are if a tile can read them there
// without reading beyond them or meeting cache set conflicts, else a copy.
template <class S>
Matrix<Accumulator<S>> rows_of(const S* from, const std::int64_t* stride, std::int64_t start, std::int64_t n,
                               std::int64_t d, Accumulator<S>* copy, std::int64_t copy_row) {
    using T = Accumulator<S>;
    const S* source = from + start * stride[2];
    if constexpr (std::is_same_v<S, T>) {
        const bool whole = n % kRows == 0 && n % kWidth<T> == 0 && d % kWidth<T> == 0;
        if (whole && stride[3] == 1 && stride[2] == d && d * sizeof(T) <= 256) return {source, d};
    }
    pack(source, stride[2], stride[3], n, d, copy, copy_row);
    return {copy, copy_row};
}

// S with rows of `row` elements from the caller's contiguous state, or zeros.
template <class T>
void read_state(const ConstState& state, const Shape& shape, std::int64_t index, T* s, std::int64_t row,
                T* z) {
    const T* from_s = static_cast<const T*>(state.s);
    const T* from_z = static_cast<const T*>(state.z);
    for (std::int64_t p = 0; p < shape.d_phi; ++p) {
        for (std::int64_t e = 0; e < shape.d_v; ++e)
            s[p * row + e] = from_s ? from_s[(index * shape.d_phi + p) * shape.d_v + e] : T(0);
        z[p] = from_z ? from_z[index * shape.d_phi + p] : T(0);
    }
}

template <class T>
void write_state(const State& state, const Shape& shape, std::int64_t index, const T* s, std::int64_t row,
                 const T* z) {
    T* to_s = static_cast<T*>(state.s);
    T* to_z = static_cast<T*>(state.z);
    if (!to_z) return;
    for (std::int64_t p = 0; p < shape.d_phi; ++p) {
        pack<T>(s + p * row, row, 1, 1, shape.d_v, to_s + (index * shape.d_phi + p) * shape.d_v, shape.d_v);
        to_z[index * shape.d_phi + p] = z[p];
    }
}

template <class S>
struct ForwardPass {
    using T = Accumulator<S>;
    static constexpr std::int64_t w = kWidth<T>, size = sizeof(S);

    const ForwardParams& params;
    const Shape& shape;
    std::int64_t chunk, wide_row, value_row, chunk_row;
    FeatureMap<T> phi;
    T *x, *phi_q, *x_t, *phi_kt, *v, *scores, *state, *z, *scale;

    ForwardPass(const ForwardParams& p, Arena& arena) : params(p), shape(p.shape) {
        chunk = smaller(kForwardChunk, round_up(larger(shape.length, 1), w));
        wide_row = row_length<T>(larger(shape.d_k, shape.d_phi));
        value_row = row_length<T>(shape.d_v);
        chunk_row = row_length<T>(chunk);
        phi.place(arena, shape, p.phi);
        x = arena.matrix<T>(chunk, wide_row);
        phi_q = arena.matrix<T>(chunk, wide_row);
        x_t = arena.matrix<T>(shape.d_k, chunk_row);
        phi_kt = arena.matrix<T>(shape.d_phi, chunk_row);
        v = arena.matrix<T>(chunk, value_row);
        scores = arena.matrix<T>(chunk, chunk_row);
        state = arena.matrix<T>(shape.d_phi, value_row);
        z = arena.take<T>(wide_row);
        scale = arena.take<T>(chunk + kRows);
    }

    void run(std::int64_t index) {
        const std::int64_t b = index / shape.heads, h = index % shape.heads;
        phi.read(params.phi, h);
        q_data = slice<S>(params.q, b, h);
        k_data = slice<S>(params.k, b, h);
        v_data = slice<S>(params.v, b, h);
        out_data = slice_out<S>(params.out, b, h);
        read_state(params.initial, shape, index, state, value_row, z);
        for (std::int64_t p = shape.d_phi; p < wide_row; ++p) z[p] = T(0);
        if (!params.causal)
            for (std::int64_t i = 0; i < shape.length; i += chunk) {
                const std::int64_t n = smaller(chunk, shape.length - i);
                keys(i, n);
                add_to_state(values(i, n), n, i + n);
            }
        for (std::int64_t i = 0; i < shape.length; i += chunk) {
            const std::int64_t n = smaller(chunk, shape.length - i);
            const Matrix<T> pq = queries(i, n);
            Matrix<T> values_here{v, value_row};
            if (params.causal) {
                keys(i, n);
                values_here = values(i, n);
                lower_product<T>(scores, chunk_row, n,
                                 {pq.data, pq.row, 1, kt, kt_row, shape.d_phi, Part::all});
            }
            scales(pq, n);
            outputs(pq, values_here, i, n);
            if (params.causal) add_to_state(values_here, n, i + n);
        }
        write_state(params.final, shape, index, state, value_row, z);
    }

  private:
    const S *q_data = nullptr, *k_data = nullptr, *v_data = nullptr;
    S* out_data = nullptr;
    const T* kt = nullptr;  // phi(K)^T of this chunk
    std::int64_t kt_row = 0;

    Matrix<T> queries(std::int64_t start, std::int64_t n) {
        const Matrix<T> rows = rows_of(q_data, params.q.stride, start, n, shape.d_k, x, wide_row);
        if (!phi.mapped) return rows;
        phi.by_rows(rows.data, rows.row, n, phi_q, wide_row);
        return {phi_q, wide_row};
    }

    void keys(std::int64_t start, std::int64_t n) {
        // The queries of an unmapped chunk may still be in x; phi_q is free then.
        T* copy = phi.mapped ? x : phi_q;
        const Matrix<T> rows = rows_of(k_data, params.k.stride, start, n, shape.d_k, copy, wide_row);
        T* direct = phi.mapped ? x_t : phi_kt;
        transpose(rows.data, rows.row, n, shape.d_k, direct, chunk_row);
        if (phi.mapped) phi.by_columns(x_t, chunk_row, n, phi_kt, chunk_row);
        for (std::int64_t p = 0; p < shape.d_phi; ++p)  // sums below go over whole vectors
            for (std::int64_t j = n; j < round_up(n, w); ++j) phi_kt[p * chunk_row + j] = T(0);
        kt = phi_kt;
        kt_row = chunk_row;
    }

    Matrix<T> values(std::int64_t start, std::int64_t n) {
        return rows_of(v_data, params.v.stride, start, n, shape.d_v, v, value_row);
    }

    void add_to_state(const Matrix<T>& rows, std::int64_t n, std::int64_t next) {
        const std::int64_t k_row = params.k.stride[2] * size, v_row = params.v.stride[2] * size;
        const S *const k = k_data, *const from = v_data;
        accumulate<T>(state, value_row, shape.d_phi, shape.d_v,
                      {kt, kt_row, 1, rows.data, rows.row, n, Part::all},
                      [=](std::int64_t i, std::int64_t c) ASI_LAMBDA {
                          if (i >= n) return;
                          prefetch(k, (next + i) * k_row + c * size);
                          prefetch(from, (next + i) * v_row + c * size);
                      });
        for (std::int64_t p = 0; p < shape.d_phi; ++p) {
            Vec<T> total{};
            for (std::int64_t j = 0; j < n; j += w) total += load(kt + p * kt_row + j);
            z[p] += sum<T>(total);
        }
    }

    // 1 / normaliser of each row
    void scales(const Matrix<T>& pq, std::int64_t n) {
        const std::int64_t whole = shape.d_phi / w * w;
        for (std::int64_t i = 0; i < n; ++i) {
            const T* row = pq.data + i * pq.row;
            Vec<T> total{};
            for (std::int64_t p = 0; p < whole; p += w) total += load(row + p) * load(z + p);
            if (params.causal)
                for (std::int64_t j = 0; j <= i; j += w) total += load(scores + i * chunk_row + j);
            T normaliser = sum<T>(total) + static_cast<T>(params.eps);
            for (std::int64_t p = whole; p < shape.d_phi; ++p) normaliser += row[p] * z[p];
            scale[i] = T(1) / normaliser;
        }
    }

    void outputs(const Matrix<T>& pq, const Matrix<T>& rows, std::int64_t start, std::int64_t n) {
        const std::int64_t out_row = params.out.stride[2], d_v = shape.d_v;
        const std::int64_t q_row = params.q.stride[2] * size, next = start + n;
        const S* const q = q_data;
        S *const out = out_data, *const to = out + start * out_row;
        const T* const factor = scale;
        const Term<T> inside{scores, chunk_row, 1, rows.data, rows.row, params.causal ? n : 0, Part::lower};
        const Term<T> before{pq.data, pq.row, 1, state, value_row, shape.d_phi, Part::all};
        gemm<T>(n, d_v, inside, before, false, Zero<T>{},
                [=](std::int64_t i, std::int64_t c, Vec<T> x) ASI_LAMBDA {
                    if (i < n) store_part(to + i * out_row + c, x * factor[i], d_v - c);
                    prefetch(q, (next + i) * q_row + c * size);
                    prefetch<true>(out, (next + i) * out_row * size + c * size);
                });
    }
};

template <class S>
std::size_t forward_scratch_as(const ForwardParams& params) {
    Arena arena;
    ForwardPass<S> pass(params, arena);
    return arena.used;
}

template <class S>
void forward_as(const ForwardParams& params, std::int64_t index, std::byte* scratch) {
    Arena arena{scratch};
    ForwardPass<S>(params, arena).run(index);
}

}  // namespace
}  // namespace asi::linear_attention
