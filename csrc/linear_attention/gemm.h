// Products of small matrices that live in scratch: register tiles of kRows rows by one or two vectors. The
// left factor is read one element at a time, so any strides do; the right factor has contiguous rows. Rows
// and columns beyond the matrix are computed and thrown away (scratch is padded for it), the summed dimension
// is exact.
#pragma once

#include "linear_attention/simd.h"

namespace asi::linear_attention {
namespace {

// Which part of the summed dimension k contributes to row i.
enum class Part { all, lower, upper };  // all, k <= i, k >= i; the factor has zeros where a tile reads beyond

template <class T>
struct Term {
    const T* a = nullptr;
    std::int64_t a_row = 0, a_k = 0;
    const T* b = nullptr;
    std::int64_t b_row = 0;
    std::int64_t k = 0;
    Part part = Part::all;
};

template <int NV, class T>
ASI_INLINE void multiply(Vec<T> (&sums)[kRows][NV], const T* __restrict a, std::int64_t a_row,
                         std::int64_t a_k, const T* __restrict b, std::int64_t b_row, std::int64_t k) {
    for (; k > 0; --k) {
        Vec<T> right[NV];
#pragma GCC unroll 4
        for (int n = 0; n < NV; ++n) right[n] = load(b + n * kWidth<T>);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            const Vec<T> left = splat(a[r * a_row]);
#pragma GCC unroll 4
            for (int n = 0; n < NV; ++n) sums[r][n] += left * right[n];
        }
        a += a_k;
        b += b_row;
    }
}

template <int NV, class T>
ASI_INLINE void add_term(Vec<T> (&sums)[kRows][NV], const Term<T>& term, std::int64_t i, std::int64_t c) {
    const std::int64_t from = term.part == Part::upper ? smaller(i, term.k) : 0;
    const std::int64_t to = term.part == Part::lower ? smaller(i + kRows, term.k) : term.k;
    multiply<NV, T>(sums, term.a + i * term.a_row + from * term.a_k, term.a_row, term.a_k,
                    term.b + from * term.b_row + c, term.b_row, to - from);
}

template <int NV, class T, class Init, class Finish>
ASI_INLINE void tile(const Term<T>& first, const Term<T>& second, std::int64_t i, std::int64_t c, Init init,
                     Finish finish) {
    Vec<T> sums[kRows][NV];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int n = 0; n < NV; ++n) sums[r][n] = init(i + r, c + n * kWidth<T>);
    add_term<NV, T>(sums, first, i, c);
    add_term<NV, T>(sums, second, i, c);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int n = 0; n < NV; ++n) finish(i + r, c + n * kWidth<T>, sums[r][n]);
}

// finish(i, c, init(i, c) + first + second) for every vector (i, c...) of a rows x columns result; with
// `lower` only for tiles that touch the lower triangle.
template <class T, class Init, class Finish>
ASI_INLINE void gemm(std::int64_t rows, std::int64_t columns, const Term<T>& first, const Term<T>& second,
                     bool lower, Init init, Finish finish) {
    constexpr std::int64_t w = kWidth<T>;
    for (std::int64_t c = 0; c < columns; c += 2 * w) {
        const std::int64_t start = lower ? c / kRows * kRows : 0;
        for (std::int64_t i = start; i < rows; i += kRows) {
            const bool two = c + w < columns && !(lower && c + w >= i + kRows);
            if (two)
                tile<2, T>(first, second, i, c, init, finish);
            else
                tile<1, T>(first, second, i, c, init, finish);
        }
    }
}

template <class T>
struct Zero {
    ASI_INLINE Vec<T> operator()(std::int64_t, std::int64_t) const { return Vec<T>{}; }
};

struct Nothing {
    ASI_INLINE void operator()(std::int64_t, std::int64_t) const {}
};

// target += a b; `also` is called at each vector, to fetch what comes next while the products keep the CPU
// busy
template <class T, class Also = Nothing>
ASI_INLINE void accumulate(T* target, std::int64_t row, std::int64_t rows, std::int64_t columns,
                           const Term<T>& term, Also also = {}) {
    gemm<T>(
        rows, columns, term, Term<T>{}, false,
        [=](std::int64_t i, std::int64_t c) ASI_LAMBDA { return load(target + i * row + c); },
        [=](std::int64_t i, std::int64_t c, Vec<T> x) ASI_LAMBDA {
            store(target + i * row + c, x);
            also(i, c);
        });
}

// target = the lower triangle of a b, with zeros above it as far as tiles reach
template <class T>
void lower_product(T* target, std::int64_t row, std::int64_t n, const Term<T>& term) {
    typedef std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t> Int;
    Vec<Int> lane{};
    for (std::int64_t c = 0; c < kWidth<T>; ++c) lane[c] = static_cast<Int>(c);
    gemm<T>(n, n, term, Term<T>{}, true, Zero<T>{}, [=](std::int64_t i, std::int64_t c, Vec<T> x) ASI_LAMBDA {
        const Vec<Int> last = Vec<Int>{} + static_cast<Int>(i - c);
        store(target + i * row + c, lane > last ? Vec<T>{} : x);
    });
}

// phi(x) = ELU(W x + b) + 1 with W in both orders, or the identity.
template <class T>
struct FeatureMap {
    bool mapped = false;
    std::int64_t d_k = 0, d_phi = 0;
    T *w = nullptr, *w_t = nullptr, *bias = nullptr;
    std::int64_t w_row = 0, w_t_row = 0;

    void place(Arena& arena, const Shape& shape, const Features& features) {
        mapped = features.weight != nullptr;
        d_k = shape.d_k;
        d_phi = shape.d_phi;
        if (!mapped) return;
        w_row = row_length<T>(d_k);
        w_t_row = row_length<T>(d_phi);
        w = arena.matrix<T>(d_phi, w_row);
        w_t = arena.matrix<T>(d_k, w_t_row);
        bias = arena.take<T>(w_t_row + kRows);
    }

    void read(const Features& features, std::int64_t head) {
        if (!mapped) return;
        const T* source = static_cast<const T*>(features.weight) + head * features.weight_head;
        pack<T>(source, d_k, 1, d_phi, d_k, w, w_row);
        transpose(w, w_row, d_phi, d_k, w_t, w_t_row);
        const T* b = static_cast<const T*>(features.bias);
        for (std::int64_t p = 0; p < d_phi; ++p) bias[p] = b ? b[head * features.bias_head + p] : T(0);
    }

    // x is (n, d_k) by rows, the result (n, d_phi) by rows
    void by_rows(const T* x, std::int64_t x_row, std::int64_t n, T* to, std::int64_t to_row) const {
        const T* b = bias;
        gemm<T>(
            n, d_phi, Term<T>{x, x_row, 1, w_t, w_t_row, d_k, Part::all}, Term<T>{}, false,
            [=](std::int64_t, std::int64_t c) ASI_LAMBDA { return load(b + c); },
            [=](std::int64_t i, std::int64_t c, Vec<T> u)
                ASI_LAMBDA { store(to + i * to_row + c, elu_plus_one<T>(u)); });
    }

    // x is (d_k, n), the result (d_phi, n)
    void by_columns(const T* x, std::int64_t x_row, std::int64_t n, T* to, std::int64_t to_row) const {
        const T* b = bias;
        gemm<T>(
            d_phi, n, Term<T>{w, w_row, 1, x, x_row, d_k, Part::all}, Term<T>{}, false,
            [=](std::int64_t i, std::int64_t) ASI_LAMBDA { return splat(b[i]); },
            [=](std::int64_t i, std::int64_t c, Vec<T> u)
                ASI_LAMBDA { store(to + i * to_row + c, elu_plus_one<T>(u)); });
    }
};

}  // namespace
}  // namespace asi::linear_attention
