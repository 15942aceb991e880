// AVX-512 with BF16: the forward pass of bfloat16 tensors, chunk by chunk as in forward.h. The rest is that
// of avx512.cpp.
//
// VDPBF16PS adds two products of bfloat16 to a float32 sum, in the time of one FMA. So the summed dimension
// goes by pairs: the left factor is read 32 bits, a pair, at a time; the right factor is "paired": a row
// holds in each 32-bit lane what rows 2 k and 2 k + 1 have in that column. Feature values, weights, scores
// and, where it meets the queries, S are rounded to bfloat16; all sums, and so S, z and the normaliser, are
// float32. VDPBF16PS takes subnormals for 0.
#define ASI_VECTOR_BYTES 64
#define ASI_TILE_ROWS 8
#define ASI_FORWARD_CHUNK 32
#include <immintrin.h>

#include <cmath>

#include "linear_attention/forward.h"

namespace asi::linear_attention {
namespace {

// Out of line, so that the constants of one part do not take the registers from the sums of another.
#define ASI_APART __attribute__((noinline))

using Pair = std::uint32_t;          // two BFloat16
constexpr std::int64_t kLanes = 16;  // of 32 bits
constexpr std::int64_t kChunk = kForwardChunk, kBlock = 2 * kLanes;
static_assert(kChunk == kBlock, "a chunk's scores are one vector of bfloat16 a row");

ASI_INLINE std::int64_t padded(std::int64_t columns) { return round_up(larger(columns, 1), kBlock); }

struct Rows {  // n x d, both padded with zeros or with what does no harm
    const BFloat16* data;
    std::int64_t row;
};

// Element (i, k) of the left factor is the pair a[i * a_row + k * a_k]; `count` pairs are summed.
struct Product {
    const Pair* a;
    std::int64_t a_row, a_k;
    const Pair* b;
    std::int64_t b_row, count;
};

ASI_INLINE __m512 dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// 32 bfloat16: `low`, then `high`
ASI_INLINE __m512i round_both(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Pairs (even[c], odd[c])
ASI_INLINE __m512i round_paired(__m512 even, __m512 odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, round_both(even, odd));
}

template <int R, int V>
ASI_INLINE void multiply(__m512 (&sums)[R][V], const Product& p, std::int64_t i, std::int64_t c) {
    const Pair* a = p.a + i * p.a_row;
    const Pair* b = p.b + c;
    for (std::int64_t k = 0; k < p.count; ++k) {
        __m512i right[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) right[v] = _mm512_loadu_si512(b + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            Pair pair;
            __builtin_memcpy(&pair, a + r * p.a_row, sizeof(pair));
            const __m512i left = _mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) sums[r][v] = dot(sums[r][v], left, right[v]);
        }
        a += p.a_k;
        b += p.b_row;
    }
}

// ELU(x) + 1, to a bit more than bfloat16 holds: 2^t = 2^floor(t) p(t - floor(t)) with a minimax p of degree
// 3, relative error 7.5e-5.
ASI_INLINE __m512 rough_elu_plus_one(__m512 x) {
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.07802452f), _mm512_set1_ps(0.22606716f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69583354f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.99992522f));
    const __m512 e = _mm512_scalef_ps(p, t);
    return _mm512_mask_add_ps(e, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), x,
                              _mm512_set1_ps(1.0f));
}

// to: rows 2 j and 2 j + 1 of `from` paired, for kChunk rows
ASI_INLINE void pair_rows(const Rows& from, std::int64_t columns, Pair* to, std::int64_t to_row) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (std::int64_t j = 0; j < kChunk / 2; ++j)
        for (std::int64_t c = 0; c < columns; c += kBlock) {
            const BFloat16* source = from.data + 2 * j * from.row + c;
            const __m512i even = _mm512_loadu_si512(source), odd = _mm512_loadu_si512(source + from.row);
            _mm512_storeu_si512(to + j * to_row + c, _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(to + j * to_row + c + kLanes, _mm512_permutex2var_epi16(even, high, odd));
        }
}

struct PairedPass {
    const ForwardParams& params;
    const Shape& shape;
    const bool mapped;
    const std::int64_t key_row, phi_row, value_row;  // padded d_k, d_phi, d_v
    BFloat16 *x, *phi_q, *phi_k, *v, *scores, *z_high, *z_low;
    Pair *weight, *k_t, *k_paired, *v_paired, *s_paired;
    float *bias, *s, *z, *totals, *scale;

    PairedPass(const ForwardParams& p, Arena& arena)
        : params(p),
          shape(p.shape),
          mapped(p.phi.weight != nullptr),
          key_row(padded(shape.d_k)),
          phi_row(padded(shape.d_phi)),
          value_row(padded(shape.d_v)) {
        s = arena.matrix<float>(phi_row, value_row);
        s_paired = arena.matrix<Pair>(phi_row / 2, value_row);
        weight = mapped ? arena.matrix<Pair>(key_row / 2, phi_row) : nullptr;
        bias = arena.take<float>(phi_row);
        k_t = arena.matrix<Pair>(phi_row / 2, kChunk);
        k_paired = arena.matrix<Pair>(kChunk / 2, phi_row);
        v_paired = arena.matrix<Pair>(kChunk / 2, value_row);
        x = arena.matrix<BFloat16>(larger(kChunk, mapped ? phi_row : 0), key_row);  // first of all, W
        phi_q = arena.matrix<BFloat16>(kChunk, phi_row);
        phi_k = arena.matrix<BFloat16>(kChunk, phi_row);
        v = arena.matrix<BFloat16>(kChunk, value_row);
        scores = arena.matrix<BFloat16>(kChunk, kChunk);
        z = arena.take<float>(phi_row);
        z_high = arena.take<BFloat16>(phi_row);
        z_low = arena.take<BFloat16>(phi_row);
        totals = arena.take<float>(kChunk * kLanes);
        scale = arena.take<float>(kChunk);
    }

    void run(std::int64_t index) {
        const std::int64_t b = index / shape.heads, h = index % shape.heads;
        q_data = slice<BFloat16>(params.q, b, h);
        k_data = slice<BFloat16>(params.k, b, h);
        v_data = slice<BFloat16>(params.v, b, h);
        out_data = slice_out<BFloat16>(params.out, b, h);
        if (mapped) read_weight(h);
        read_state(params.initial, shape, index, s, value_row, z);
        // The previous pair may have left a NaN here, which 0 times it would bring into the sums.
        for (std::int64_t e = 0; shape.d_phi % 2 && e < value_row; ++e) s[shape.d_phi * value_row + e] = 0.0f;
        for (std::int64_t p = shape.d_phi; p < phi_row; ++p) z[p] = 0.0f;
        for (std::int64_t p = 0; p < shape.d_phi; p += 2)
            for (std::int64_t e = 0; e < value_row; e += kLanes) {
                const float* from = s + p * value_row + e;
                const __m512 even = _mm512_loadu_ps(from), odd = _mm512_loadu_ps(from + value_row);
                _mm512_storeu_si512(s_paired + p / 2 * value_row + e, round_paired(even, odd));
            }
        round_z();
        if (!params.causal)
            for (std::int64_t i = 0; i < shape.length; i += kChunk) {
                const std::int64_t n = smaller(kChunk, shape.length - i);
                keys(i, n);
                values(i, n);
                add_to_state(n, i + n);
            }
        for (std::int64_t i = 0; i < shape.length; i += kChunk) {
            const std::int64_t n = smaller(kChunk, shape.length - i);
            const Rows q = queries(i, n);
            if (params.causal) {
                keys(i, n);
                values(i, n);
                score(q, n);
            }
            scales(q);
            outputs(q, i, n);
            if (params.causal) add_to_state(n, i + n);
        }
        write_state(params.final, shape, index, s, value_row, z);
    }

  private:
    const BFloat16 *q_data = nullptr, *k_data = nullptr, *v_data = nullptr;
    BFloat16* out_data = nullptr;

    // W^T, paired
    void read_weight(std::int64_t head) {
        const float* w = static_cast<const float*>(params.phi.weight) + head * params.phi.weight_head;
        const float* b = static_cast<const float*>(params.phi.bias);
        for (std::int64_t p = 0; p < phi_row; ++p)
            for (std::int64_t d = 0; d < key_row; ++d)
                narrow(p < shape.d_phi && d < shape.d_k ? w[p * shape.d_k + d] : 0.0f, x + p * key_row + d);
        transpose(reinterpret_cast<const Pair*>(x), key_row / 2, phi_row, key_row / 2, weight, phi_row);
        for (std::int64_t d = 0; d < kChunk * key_row; ++d) x[d] = BFloat16{0};
        for (std::int64_t p = 0; p < shape.d_phi; ++p)
            bias[p] = b ? b[head * params.phi.bias_head + p] : 0.0f;
    }

    // kChunk rows from `start`, zeros after the n-th: where they are if whole vectors can be read there
    // without meeting cache set conflicts, else a copy.
    Rows rows_here(const BFloat16* from, const View& view, std::int64_t start, std::int64_t n, std::int64_t d,
                   BFloat16* copy, std::int64_t copy_row) const {
        const std::int64_t row = view.stride[2], column = view.stride[3];
        const BFloat16* source = from + start * row;
        const bool aligned = reinterpret_cast<std::uintptr_t>(source) % sizeof(Pair) == 0;
        if (n == kChunk && column == 1 && row == d && d % kBlock == 0 && d <= 128 && aligned)
            return {source, row};
        for (std::int64_t i = 0; i < n; ++i) {
            std::int64_t c = 0;
            if (column == 1)
                for (; c + kBlock <= d; c += kBlock)
                    __builtin_memcpy(copy + i * copy_row + c, source + i * row + c,
                                     kBlock * sizeof(BFloat16));
            for (; c < d; ++c) copy[i * copy_row + c] = source[i * row + c * column];
        }
        clear(copy, copy_row, n);
        return {copy, copy_row};
    }

    static void clear(BFloat16* rows, std::int64_t row, std::int64_t n) {
        if (n < kChunk) __builtin_memset(rows + n * row, 0, static_cast<std::size_t>((kChunk - n) * row) * 2);
    }

    ASI_APART void map(const Rows& from, std::int64_t n, BFloat16* to) const {
        const std::int64_t pairs = (shape.d_k + 1) / 2;
        const Product product{
            reinterpret_cast<const Pair*>(from.data), from.row / 2, 1, weight, phi_row, pairs};
        for (std::int64_t c = 0; c < phi_row; c += kBlock) {
            const std::int64_t here = smaller(kBlock, shape.d_phi - c);  // phi of the padding would be 1
            const auto inside = static_cast<__mmask32>(~std::uint32_t{0} >> (kBlock - here));
            const __m512 low = _mm512_loadu_ps(bias + c), high = _mm512_loadu_ps(bias + c + kLanes);
            for (std::int64_t i = 0; i < n; i += kRows) {
                __m512 sums[kRows][2];
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) sums[r][0] = low, sums[r][1] = high;
                multiply(sums, product, i, c);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    const __m512i phi =
                        round_both(rough_elu_plus_one(sums[r][0]), rough_elu_plus_one(sums[r][1]));
                    _mm512_storeu_si512(to + (i + r) * phi_row + c, _mm512_maskz_mov_epi16(inside, phi));
                }
            }
        }
        clear(to, phi_row, n);
    }

    Rows queries(std::int64_t start, std::int64_t n) {
        const Rows rows = rows_here(q_data, params.q, start, n, shape.d_k, mapped ? x : phi_q, key_row);
        if (!mapped) return rows;
        map(rows, n, phi_q);
        return {phi_q, phi_row};
    }

    ASI_APART void keys(std::int64_t start, std::int64_t n) {
        Rows rows = rows_here(k_data, params.k, start, n, shape.d_k, mapped ? x : phi_k, key_row);
        if (mapped) {
            map(rows, n, phi_k);
            rows = {phi_k, phi_row};
        }
        if (params.causal)
            transpose(reinterpret_cast<const Pair*>(rows.data), rows.row / 2, kChunk, phi_row / 2, k_t,
                      kChunk);
        pair_rows(rows, phi_row, k_paired, phi_row);
    }

    void values(std::int64_t start, std::int64_t n) {
        pair_rows(rows_here(v_data, params.v, start, n, shape.d_v, v, value_row), value_row, v_paired,
                  value_row);
    }

    // scores = tril(phi(Q) phi(K)^T), rounded; `totals` gets what adds up to the rows' sums before that.
    ASI_APART void score(const Rows& q, std::int64_t n) {
        const std::int64_t pairs = (shape.d_phi + 1) / 2;
        const Product product{reinterpret_cast<const Pair*>(q.data), q.row / 2, 1, k_t, kChunk, pairs};
        for (std::int64_t i = 0; i < kLanes; i += kRows) {
            __m512 sums[kRows][1] = {};
            multiply(sums, product, i, 0);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const auto seen = static_cast<__mmask16>((2u << (i + r)) - 1);
                const __m512 low = _mm512_maskz_mov_ps(seen, sums[r][0]);
                _mm512_storeu_si512(scores + (i + r) * kChunk, round_both(low, _mm512_setzero_ps()));
                _mm512_storeu_ps(totals + (i + r) * kLanes, low);
            }
        }
        for (std::int64_t i = kLanes; i < n; i += kRows) {
            __m512 sums[kRows][2] = {};
            multiply(sums, product, i, 0);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const auto seen = static_cast<__mmask16>((2u << (i + r - kLanes)) - 1);
                const __m512 low = sums[r][0], high = _mm512_maskz_mov_ps(seen, sums[r][1]);
                _mm512_storeu_si512(scores + (i + r) * kChunk, round_both(low, high));
                _mm512_storeu_ps(totals + (i + r) * kLanes, _mm512_add_ps(low, high));
            }
        }
    }

    // 1 / normaliser of each row
    ASI_APART void scales(const Rows& q) {
        for (std::int64_t i = 0; i < kChunk; i += kLanes) {
            Vec<float> sums[kLanes];
            for (std::int64_t r = 0; r < kLanes; ++r) {
                __m512 total =
                    params.causal ? _mm512_loadu_ps(totals + (i + r) * kLanes) : _mm512_setzero_ps();
                for (std::int64_t p = 0; p < phi_row; p += kBlock) {
                    const __m512i row = _mm512_loadu_si512(q.data + (i + r) * q.row + p);
                    total = dot(total, row, _mm512_loadu_si512(z_high + p));
                    total = dot(total, row, _mm512_loadu_si512(z_low + p));
                }
                sums[r] = total;
            }
            store(scale + i, 1.0f / (sums_of<float>(sums) + static_cast<float>(params.eps)));
        }
    }

    ASI_APART void outputs(const Rows& q, std::int64_t start, std::int64_t n) {
        const std::int64_t out_row = params.out.stride[2], d_v = shape.d_v;
        BFloat16* const to = out_data + start * out_row;
        const Product before{
            reinterpret_cast<const Pair*>(q.data), q.row / 2, 1, s_paired, value_row, (shape.d_phi + 1) / 2};
        Product inside{reinterpret_cast<const Pair*>(scores), kChunk / 2, 1, v_paired, value_row, 0};
        for (std::int64_t c = 0; c < d_v; c += kBlock)
            for (std::int64_t i = 0; i < n; i += kRows) {
                inside.count = params.causal ? (i + kRows) / 2 : 0;
                __m512 sums[kRows][2] = {};
                multiply(sums, before, i, c);
                multiply(sums, inside, i, c);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    const __m512 factor = _mm512_set1_ps(scale[i + r]);
                    const __m512i row =
                        round_both(_mm512_mul_ps(sums[r][0], factor), _mm512_mul_ps(sums[r][1], factor));
                    if (i + r < n) store_columns(to + (i + r) * out_row + c, row, d_v - c);
                    fetch(q_data, params.q, start + n + i + r, c);
                    prefetch<true>(out_data, ((start + n + i + r) * out_row + c) * 2);
                }
            }
    }

    static void fetch(const BFloat16* data, const View& view, std::int64_t row, std::int64_t column) {
        prefetch(data, (row * view.stride[2] + column) * 2);
    }

    // Not a masked store, which this CPU family does slowly.
    ASI_INLINE static void store_columns(BFloat16* to, __m512i row, std::int64_t count) {
        if (count >= kBlock) {
            _mm512_storeu_si512(to, row);
            return;
        }
        BFloat16 part[kBlock];
        _mm512_storeu_si512(part, row);
        __builtin_memcpy(to, part, static_cast<std::size_t>(count) * 2);
    }

    // S += phi(K)^T V, z += phi(K)^T 1
    ASI_APART void add_to_state(std::int64_t n, std::int64_t next) {
        const Product product{k_paired, 1, phi_row, v_paired, value_row, (n + 1) / 2};
        for (std::int64_t c = 0; c < value_row; c += kBlock)
            for (std::int64_t p = 0; p < shape.d_phi; p += kRows) {
                float* const at = s + p * value_row + c;
                Pair* const paired = s_paired + p / 2 * value_row + c;
                __m512 sums[kRows][2];
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    sums[r][0] = _mm512_loadu_ps(at + r * value_row);
                    sums[r][1] = _mm512_loadu_ps(at + r * value_row + kLanes);
                    if (p + r >= kChunk) continue;
                    fetch(k_data, params.k, next + p + r, c);
                    fetch(v_data, params.v, next + p + r, c);
                }
                multiply(sums, product, p, c);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
                    for (int e = 0; e < 2; ++e) {
                        _mm512_storeu_ps(at + r * value_row + e * kLanes, sums[r][e]);
                        if (r % 2 == 0)
                            _mm512_storeu_si512(paired + r / 2 * value_row + e * kLanes,
                                                round_paired(sums[r][e], sums[r + 1][e]));
                    }
            }
        const __m512i ones = _mm512_set1_epi16(0x3F80);
        for (std::int64_t p = 0; p < phi_row; p += kLanes) {
            __m512 total = _mm512_setzero_ps(), other = total;
            for (std::int64_t j = 0; j < kChunk / 2; j += 2) {
                total = dot(total, _mm512_loadu_si512(k_paired + j * phi_row + p), ones);
                other = dot(other, _mm512_loadu_si512(k_paired + (j + 1) * phi_row + p), ones);
            }
            _mm512_storeu_ps(z + p, _mm512_add_ps(_mm512_loadu_ps(z + p), _mm512_add_ps(total, other)));
        }
        round_z();
    }

    // z as the sum of two bfloat16
    void round_z() {
        for (std::int64_t p = 0; p < phi_row; p += kBlock) {
            const __m512 low = _mm512_loadu_ps(z + p), high = _mm512_loadu_ps(z + p + kLanes);
            const __m512i rounded = round_both(low, high);
            _mm512_storeu_si512(z_high + p, rounded);
            const __m512 rest_low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(rounded)));
            const __m512 rest_high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64(rounded, 1)));
            _mm512_storeu_si512(z_low + p, round_both(rest_low, rest_high));
        }
    }

    ASI_INLINE static __m512 widened(__m256i x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
};

std::size_t forward_scratch(const ForwardParams& params) {
    if (params.dtype != DType::bf16) return avx512_kernels().forward_scratch(params);
    Arena arena;
    PairedPass pass(params, arena);
    return arena.used;
}

void forward_one(const ForwardParams& params, std::int64_t index, std::byte* scratch) {
    if (params.dtype != DType::bf16) return avx512_kernels().forward(params, index, scratch);
    Arena arena{scratch};
    PairedPass(params, arena).run(index);
}

}  // namespace

const Kernels& avx512_bf16_kernels() {
    static const Kernels kernels = [] {
        Kernels found = avx512_kernels();
        found.name = "avx512_bf16";
        found.forward_scratch = forward_scratch;
        found.forward = forward_one;
        return found;
    }();
    return kernels;
}

}  // namespace asi::linear_attention
