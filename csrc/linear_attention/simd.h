// Vectors of one width, chosen by the file that includes this. Everything is in an anonymous namespace: code
// compiled for AVX must not be what the linker picks for a portable caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "linear_attention/linear_attention.h"

#if !defined(ASI_VECTOR_BYTES) || !defined(ASI_TILE_ROWS)
#error "define ASI_VECTOR_BYTES and ASI_TILE_ROWS before including the kernels"
#endif

#define ASI_INLINE inline __attribute__((always_inline))
#define ASI_LAMBDA __attribute__((always_inline))

namespace asi::linear_attention {
namespace {

constexpr int kRows = ASI_TILE_ROWS;  // of a register tile
constexpr std::int64_t kLine = 64;    // bytes of a cache line

struct BFloat16 {
    std::uint16_t bits;
};

template <class S>
struct AccumulatorOf {
    using type = S;
};
template <>
struct AccumulatorOf<BFloat16> {
    using type = float;
};
template <class S>
using Accumulator = typename AccumulatorOf<S>::type;

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(ASI_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr std::int64_t kWidth = ASI_VECTOR_BYTES / sizeof(T);

template <class T>
ASI_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

template <class T>
ASI_INLINE void store(T* p, Vec<T> v) {
    __builtin_memcpy(p, &v, sizeof(v));
}

template <class T>
ASI_INLINE Vec<T> splat(T x) {
    return x - Vec<T>{};
}

template <class T>
ASI_INLINE T sum(Vec<T> v) {
    T part[kWidth<T>];
    store(part, v);
    for (std::int64_t half = kWidth<T> / 2; half > 0; half /= 2)
        for (std::int64_t i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

ASI_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
ASI_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a < b ? b : a; }
ASI_INLINE std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

// Length of a matrix row: whole vectors, and an odd number of cache lines so that a column does not fall on
// few sets.
template <class T>
ASI_INLINE std::int64_t row_length(std::int64_t columns) {
    const std::int64_t line = kLine / static_cast<std::int64_t>(sizeof(T));
    const std::int64_t n = round_up(larger(columns, 1), larger(line, kWidth<T>));
    return (n / line) % 2 ? n : n + line;
}

// --- exponential and feature map
// --------------------------------------------------------------------------------

ASI_INLINE Vec<float> exp_negative(Vec<float> x) {  // for x <= 0; relative error about 1e-7
    typedef std::int32_t Int __attribute__((vector_size(ASI_VECTOR_BYTES)));
    const float lowest = -87.0f, magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const auto tiny = x < lowest;
    const Vec<float> y = tiny ? splat(lowest) : x;
    const Vec<float> t = y * 1.44269504088896341f + magic;
    const Vec<float> n = t - magic;
    Vec<float> r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Vec<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Int exponent = (reinterpret_cast<Int>(t) - 0x4B400000 + 127) << 23;
    const Vec<float> e = p * reinterpret_cast<Vec<float>>(exponent);
    return tiny ? Vec<float>{} : e;
}

ASI_INLINE Vec<double> exp_negative(Vec<double> x) {  // for x <= 0; relative error about 2e-16
    typedef std::int64_t Int __attribute__((vector_size(ASI_VECTOR_BYTES)));
    const double lowest = -708.0, magic = 6755399441055744.0;  // 1.5 * 2^52
    const auto tiny = x < lowest;
    const Vec<double> y = tiny ? splat(lowest) : x;
    const Vec<double> t = y * 1.4426950408889634074 + magic;
    const Vec<double> n = t - magic;
    Vec<double> r = y - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    double factorial = 6227020800.0;  // 13!
    Vec<double> p = splat(1.0 / factorial);
    for (int i = 13; i > 0; --i) {
        factorial /= i;
        p = p * r + 1.0 / factorial;
    }
    const Int exponent = (reinterpret_cast<Int>(t) - 0x4338000000000000LL + 1023) << 52;
    const Vec<double> e = p * reinterpret_cast<Vec<double>>(exponent);
    return tiny ? Vec<double>{} : e;
}

// ELU(x) + 1: no cancellation for negative x, where it is exp(x). NaN stays NaN.
template <class T>
ASI_INLINE Vec<T> elu_plus_one(Vec<T> x) {
    const Vec<T> e = exp_negative(x);
    return x > T(0) ? x + T(1) : e;
}

// Its derivative, from its value: 1 where x > 0, exp(x) = phi below.
template <class T>
ASI_INLINE Vec<T> elu_slope(Vec<T> phi) {
    return phi > T(1) ? splat(T(1)) : phi;
}

// --- between the caller's tensors and scratch
// -------------------------------------------------------------------

ASI_INLINE float widen(float x) { return x; }
ASI_INLINE double widen(double x) { return x; }
ASI_INLINE float widen(BFloat16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
}

ASI_INLINE void narrow(float x, float* to) { *to = x; }
ASI_INLINE void narrow(double x, double* to) { *to = x; }
ASI_INLINE void narrow(float x, BFloat16* to) {  // to nearest, ties to even
    std::uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof(bits));
    if (x != x) {
        to->bits = 0x7FC0;
        return;
    }
    to->bits = static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

template <class T>
ASI_INLINE Vec<T> load_wide(const T* p) {
    return load(p);
}
ASI_INLINE Vec<float> load_wide(const BFloat16* p) {
    typedef std::uint32_t Wide __attribute__((vector_size(ASI_VECTOR_BYTES)));
    typedef std::uint16_t Short __attribute__((vector_size(ASI_VECTOR_BYTES / 2)));
    Short s;
    __builtin_memcpy(&s, p, sizeof(s));
    return reinterpret_cast<Vec<float>>(__builtin_convertvector(s, Wide) << 16);
}

template <class T>
ASI_INLINE void store_narrow(T* p, Vec<T> v) {
    store(p, v);
}
ASI_INLINE void store_narrow(BFloat16* p, Vec<float> v) {
    typedef std::uint32_t Wide __attribute__((vector_size(ASI_VECTOR_BYTES)));
    typedef std::uint16_t Short __attribute__((vector_size(ASI_VECTOR_BYTES / 2)));
    const Wide bits = reinterpret_cast<Wide>(v);
    const Wide rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const Wide nan = Wide{} + 0x7FC0u;
    const Short s = __builtin_convertvector(v != v ? nan : rounded, Short);
    __builtin_memcpy(p, &s, sizeof(s));
}

// Memory to be read (or written) soon, as far as the caller's own access pattern is too short for the
// hardware to see it coming. Addresses beyond the tensor do no harm.
template <bool Write = false>
ASI_INLINE void prefetch(const void* base, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(base) + static_cast<std::uintptr_t>(bytes);
    __builtin_prefetch(reinterpret_cast<const void*>(address), Write, 2);
}

// The first `count` elements of a vector; more than a vector's width means all.
template <class S>
ASI_INLINE void store_part(S* p, Vec<Accumulator<S>> v, std::int64_t count) {
    using T = Accumulator<S>;
    if (count >= kWidth<T>) {
        store_narrow(p, v);
        return;
    }
    T part[kWidth<T>];
    store(part, v);
    for (std::int64_t i = 0; i < count; ++i) narrow(part[i], p + i);
}

template <class S>
void pack(const S* from, std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t columns,
          Accumulator<S>* to, std::int64_t to_row) {
    using T = Accumulator<S>;
    for (std::int64_t i = 0; i < rows; ++i) {
        const S* source = from + i * row;
        T* target = to + i * to_row;
        std::int64_t j = 0;
        if (column == 1)
            for (; j + kWidth<T> <= columns; j += kWidth<T>) store(target + j, load_wide(source + j));
        for (; j < columns; ++j) target[j] = widen(source[j * column]);
    }
}

// to[j][i] = from[i][j]. Reads and writes whole vectors: both matrices have rows of whole vectors and `rows`
// rounded up to the vector width must be readable.
template <class T>
void transpose(const T* from, std::int64_t from_row, std::int64_t rows, std::int64_t columns, T* to,
               std::int64_t to_row) {
    constexpr int w = kWidth<T>;
    for (std::int64_t i0 = 0; i0 < rows; i0 += w) {
        for (std::int64_t j0 = 0; j0 < columns; j0 += w) {
            const T* source = from + i0 * from_row + j0;
            T* target = to + j0 * to_row + i0;
#if defined(__GNUC__) && !defined(__clang__)
            using Index =
                typename VectorOf<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>::type;
            Vec<T> v[w];
#pragma GCC unroll 16
            for (int r = 0; r < w; ++r) v[r] = load(source + r * from_row);
            // Step s exchanges the off-diagonal s x s blocks of each 2s x 2s block.
#pragma GCC unroll 8
            for (int s = 1; s < w; s *= 2) {
                Index low{}, high{};
                for (int c = 0; c < w; ++c) {
                    low[c] = (c & s) ? c - s + w : c;
                    high[c] = (c & s) ? c + w : c + s;
                }
#pragma GCC unroll 16
                for (int r = 0; r < w; ++r) {
                    if (r & s) continue;
                    const Vec<T> a = v[r], b = v[r + s];
                    v[r] = __builtin_shuffle(a, b, low);
                    v[r + s] = __builtin_shuffle(a, b, high);
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < w; ++r) store(target + r * to_row, v[r]);
#else
            for (int r = 0; r < w; ++r)
                for (int c = 0; c < w; ++c) target[c * to_row + r] = source[r * from_row + c];
#endif
        }
    }
}

// The sums of a vector's width of vectors, as one vector.
template <class T>
ASI_INLINE Vec<T> sums_of(Vec<T>* v) {
    constexpr int w = kWidth<T>;
#if defined(__GNUC__) && !defined(__clang__)
    using Index = typename VectorOf<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>::type;
#pragma GCC unroll 8
    for (int s = w / 2; s > 0; s /= 2) {
        Index low{}, high{};
        for (int c = 0; c < w; ++c) {
            low[c] = (c & s) ? c - s + w : c;
            high[c] = (c & s) ? c + w : c + s;
        }
#pragma GCC unroll 16
        for (int r = 0; r < s; ++r)
            v[r] = __builtin_shuffle(v[r], v[r + s], low) + __builtin_shuffle(v[r], v[r + s], high);
    }
    return v[0];
#else
    Vec<T> total{};
    for (int r = 0; r < w; ++r) total[r] = sum<T>(v[r]);
    return total;
#endif
}

// --- scratch
// ----------------------------------------------------------------------------------------------------

// Hands out pieces of one block; with no block it only adds up the size.
struct Arena {
    std::byte* base = nullptr;
    std::size_t used = 0;

    template <class T>
    T* take(std::int64_t count) {
        std::byte* const place = base ? base + used : nullptr;
        used += static_cast<std::size_t>(round_up(count * static_cast<std::int64_t>(sizeof(T)), kLine));
        return reinterpret_cast<T*>(place);
    }

    // Rows are padded so that tiles and transpositions may read and write beyond the last one.
    template <class T>
    T* matrix(std::int64_t rows, std::int64_t row) {
        return take<T>((rows + larger(kRows, kWidth<T>)) * row);
    }
};

}  // namespace
}  // namespace asi::linear_attention
