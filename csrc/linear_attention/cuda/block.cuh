// What the kernels share: a block that walks over the chunks of one segment of one sequence.
#pragma once

#include "linear_attention/cuda/traits.cuh"

namespace asi::linear_attention::cuda {

template <class Tr>
struct Walker {
    using T = typename Tr::Element;
    template <int M, int N>
    using Tile = typename Tr::template Tile<M, N>;
    static constexpr int d = Tr::d, c = Tr::chunk;
    static constexpr int kPieceElements = 16 / static_cast<int>(sizeof(T));  // of one 16-byte copy
    static constexpr int kPieces = c * d / kPieceElements;

    const KernelParams& p;
    const int sequence, segment, batch, head, first, count;  // first chunk of the segment, chunks in it
    unsigned char* const shared;
    const int thread = thread_index();

    ASI_DEVICE explicit Walker(const KernelParams& params)
        : p(params),
          sequence(block_index() / params.segments),
          segment(block_index() % params.segments),
          batch(sequence / params.heads),
          head(sequence % params.heads),
          first(segment * params.segment_chunks),
          count(at_least_zero(least(params.segment_chunks, params.chunks - first))),
          shared(shared_memory()) {}

    ASI_DEVICE static int least(int a, int b) { return a < b ? a : b; }
    ASI_DEVICE static int at_least_zero(int a) { return a < 0 ? 0 : a; }

    ASI_DEVICE T* tile(int offset) const { return reinterpret_cast<T*>(shared + offset); }
    ASI_DEVICE float* vector(int offset) const { return reinterpret_cast<float*>(shared + offset); }
    ASI_DEVICE std::int64_t slot() const {
        return static_cast<std::int64_t>(sequence) * p.segments + segment;
    }
    ASI_DEVICE std::int64_t start(int chunk) const { return static_cast<std::int64_t>(chunk) * c; }
    // Rows of a chunk that are there; the others are zeros everywhere.
    ASI_DEVICE int valid(int chunk) const {
        const std::int64_t left = p.length - start(chunk);
        return left < c ? static_cast<int>(left) : c;
    }
    template <class E>
    ASI_DEVICE E* rows(const Rows& x, int chunk) const {
        return static_cast<E*>(x.data) + batch * x.batch + head * x.head + start(chunk) * x.row;
    }

    // --- global -> shared
    // -------------------------------------------------------------------------------------

    ASI_DEVICE void load(const Rows& x, int chunk, T* to) const {
        const T* from = rows<T>(x, chunk);
        const int n = valid(chunk);
        for (int i = thread; i < kPieces; i += Tr::threads) {
            const int row = i / (d / kPieceElements), column = i % (d / kPieceElements) * kPieceElements;
            const bool there = row < n;
            const T* source = from + (there ? row * x.row + column : 0);
            T* target = to + row * Tr::row + column;
            if constexpr (Tr::kAsync)
                copy_async16(target, source, there);
            else if (there)
                copy16(target, source);
            else
                zero16(target);
        }
    }

    // float16 -> bfloat16 in place, each thread what it has copied itself. State and scaled gradient grow and
    // shrink with the length, beyond what float16 can hold.
    ASI_DEVICE void convert(T* tile) const {
        if constexpr (Tr::kTensor) {
            if (!p.half) return;
            for (int i = thread; i < kPieces; i += Tr::threads) {
                const int row = i / (d / kPieceElements), column = i % (d / kPieceElements) * kPieceElements;
                T* at = tile + row * Tr::row + column;
                for (int e = 0; e < kPieceElements; ++e) narrow(widen(f16{at[e].bits}), at[e]);
            }
        }
    }

    // The chunk `i` of `loads` in turn: `load_all(chunk, stage)` copies it, while the one before is computed
    // with.
    template <class Load>
    ASI_DEVICE int arrive(int i, int chunk, int next, Load load_all) const {
        if constexpr (Tr::kAsync) {
            if (i == 0) {
                load_all(chunk, 0);
                copy_async_commit();
            }
            if (i + 1 < count) load_all(next, (i + 1) % 2);
            copy_async_commit();
            copy_async_wait<1>();
            return i % 2;
        } else {
            load_all(chunk, 0);
            return 0;
        }
    }

    // --- feature map
    // ------------------------------------------------------------------------------------------

    // W for the products: in bfloat16 in shared memory, or where it is.
    ASI_DEVICE const T* weight(int offset) const {
        const float* from = p.weight + head * p.weight_head;
        if constexpr (Tr::kTensor) {
            T* to = tile(offset);
            if (p.weight)
                for (int i = thread; i < d * d; i += Tr::threads)
                    narrow(from[i], to[i / d * Tr::row + i % d]);
            return to;
        } else {
            return from;
        }
    }

    ASI_DEVICE void read_bias(float* to) const {
        for (int i = thread; i < d; i += Tr::threads) to[i] = p.bias ? p.bias[head * p.bias_head + i] : 0.0F;
    }

    // phi of a chunk: zero for rows that are not there.
    ASI_DEVICE void features(const T* x, const T* w, const float* bias, int n, T* to) const {
        if (!p.weight) {
            for (int i = thread; i < kPieces; i += Tr::threads) {
                const int at = i / (d / kPieceElements) * Tr::row + i % (d / kPieceElements) * kPieceElements;
                copy16(to + at, x + at);
            }
            return;
        }
        Tile<c, d> u;
        u.template add<false, true, d>(x, Tr::row, w, Tr::weight_row);
        u.pairs([&](int i, int j, float a, float b) {
            const bool there = i < n;
            store_pair(to + i * Tr::row + j, there ? elu_plus_one(a + bias[j]) : 0.0F,
                       there ? elu_plus_one(b + bias[j + 1]) : 0.0F);
        });
    }

    ASI_DEVICE static float elu_plus_one(float x) { return x > 0 ? x + 1 : exponential(x); }

    // --- states
    // -----------------------------------------------------------------------------------------------

    // S and z at the start of the segment; z goes to shared memory.
    ASI_DEVICE void read_state(Tile<d, d>& s, float* z) const {
        const float *from_s, *from_z;
        if (p.alone()) {
            from_s = p.begin.s ? p.begin.s + static_cast<std::int64_t>(sequence) * d * d : nullptr;
            from_z = p.begin.z ? p.begin.z + static_cast<std::int64_t>(sequence) * d : nullptr;
        } else {  // without a mask there is one state, of all tokens
            from_s =
                p.states +
                (static_cast<std::int64_t>(sequence) * p.segments + (p.causal ? segment : 0)) * (d * d + d);
            from_z = from_s + d * d;
        }
        s.pairs([&](int i, int j, float& a, float& b) {
            a = from_s ? from_s[i * d + j] : 0.0F;
            b = from_s ? from_s[i * d + j + 1] : 0.0F;
        });
        for (int i = thread; i < d; i += Tr::threads) z[i] = from_z ? from_z[i] : 0.0F;
    }

    ASI_DEVICE void write_state(Tile<d, d>& s, const float* z, float* to_s, float* to_z) const {
        s.pairs([&](int i, int j, float a, float b) { store_pair(to_s + i * d + j, a, b); });
        for (int i = thread; i < d; i += Tr::threads) to_z[i] = z[i];
    }

    ASI_DEVICE void write_end(Tile<d, d>& s, const float* z) const {
        if (p.alone() && p.end.s)
            write_state(s, z, p.end.s + static_cast<std::int64_t>(sequence) * d * d,
                        p.end.z + static_cast<std::int64_t>(sequence) * d);
    }

    // Where S lies as an operand.
    ASI_DEVICE T* state_tile(int offset) const {
        if constexpr (Tr::kStateInShared)
            return tile(offset);
        else
            return p.published + slot() * d * d;
    }

    ASI_DEVICE void publish(Tile<d, d>& s, T* to) const {
        s.pairs([&](int i, int j, float a, float b) { store_pair(to + i * Tr::state_row + j, a, b); });
    }

    // --- sums
    // -------------------------------------------------------------------------------------------------

    // to[j] += sum_i x[i][j] (times factor[i])
    ASI_DEVICE void add_columns(const T* x, const float* factor, float* to) const {
        for (int j = thread; j < d; j += Tr::threads) {
            float sum = 0;
            for (int i = 0; i < c; ++i) sum += widen(x[i * Tr::row + j]) * (factor ? factor[i] : 1.0F);
            to[j] += sum;
        }
    }

    // The sum over the lanes that share a row, in all of them.
    ASI_DEVICE static float across_row(float x) {
        for (int distance = Tr::lanes_a_row / 2; distance > 0; distance /= 2)
            x += shuffle_xor(kAllLanes, x, distance);
        return x;
    }

    // phi(q_i) . z + sum_j scores_ij + eps, for the row of this thread
    ASI_DEVICE float denominator(const T* phi_q, const float* z, const T* scores) const {
        const int row = thread / Tr::lanes_a_row, lane = thread % Tr::lanes_a_row;
        float sum = 0;
        for (int j = lane; j < d; j += Tr::lanes_a_row) sum += widen(phi_q[row * Tr::row + j]) * z[j];
        if (p.causal)
            for (int j = lane; j < c; j += Tr::lanes_a_row) sum += widen(scores[row * Tr::chunk_row + j]);
        return across_row(sum) + p.eps;
    }

    // x_i *= factor_i
    ASI_DEVICE void scale_rows(T* x, const float* factor) const {
        for (int i = thread; i < c * d; i += Tr::threads) {
            T& at = x[i / d * Tr::row + i % d];
            narrow(widen(at) * factor[i / d], at);
        }
    }

    // Row i of x . y_j where j <= i (plus add_i), else zero: x y^T within a chunk.
    ASI_DEVICE void masked_product(const T* x, const T* y, const float* add, T* to) const {
        Tile<c, c> m;
        m.template add<false, true, d>(x, Tr::row, y, Tr::row);
        m.pairs([&](int i, int j, float a, float b) {
            const float more = add ? add[i] : 0.0F;
            store_pair(to + i * Tr::chunk_row + j, j <= i ? a + more : 0.0F, j + 1 <= i ? b + more : 0.0F);
        });
    }

    ASI_DEVICE void store(const Rows& to, int chunk, int i, int j, float a, float b) const {
        if constexpr (Tr::kTensor)
            if (p.half) {
                store_pair(rows<f16>(to, chunk) + i * to.row + j, a, b);
                return;
            }
        store_pair(rows<T>(to, chunk) + i * to.row + j, a, b);
    }

    ASI_DEVICE float global(const T* at) const {
        if constexpr (Tr::kTensor)
            if (p.half) return widen(f16{at->bits});
        return widen(*at);
    }
};

}  // namespace asi::linear_attention::cuda
