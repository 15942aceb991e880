// What is chosen when a kernel is compiled, what it is told when it is launched, and where its shared memory
// goes.
#pragma once

#include "linear_attention/cuda/tile.cuh"

namespace asi::linear_attention::cuda {

enum class Math {
    portable,  // float32, neither cp.async nor mma: from Turing on
    fma,       // float32, cp.async: from Ampere on
    tensor,    // bfloat16 tiles and mma.sync for bfloat16 and float16 tensors, cp.async: from Ampere on
};

// d_k = d_phi = d_v = D.
template <Math Kind, int D>
struct Traits {
    static constexpr Math kMath = Kind;
    static constexpr int d = D;
    static constexpr bool kAsync = Kind != Math::portable, kTensor = Kind == Math::tensor;
    // Rows of a chunk. Turing has 64 KiB of shared memory, hence the smaller chunk there.
    static constexpr int chunk = !kTensor && (D == 128 || (D == 64 && !kAsync)) ? 16 : 32;
    static constexpr int threads = D == 128 ? 256 : 128;
    // Blocks of a multiprocessor, at least: bounds the registers.
    static constexpr int min_blocks = D == 128 ? 1 : D == 64 ? 2 : 3;
    static constexpr int stages = kAsync ? 2 : 1;
    // The running state as an operand: in shared memory, or in the workspace where it does not fit.
    static constexpr bool kStateInShared = kAsync || D < 128;
    template <int M, int N>
    using Tile = std::conditional_t<kTensor, TensorTile<M, N, threads>, FmaTile<M, N, threads>>;
    using Element = typename Tile<D, D>::Element;
    // Rows are padded by 16 bytes: the eight rows that are read together lie in different banks.
    static constexpr int pad = 16 / static_cast<int>(sizeof(Element));
    static constexpr int row = D + pad, chunk_row = chunk + pad;
    static constexpr int state_row = kStateInShared ? row : D;
    static constexpr int weight_row = kTensor ? row : D;  // float32 weights stay in global memory, cached
    static constexpr int lanes_a_row = threads / chunk;   // that share the sums over a row
};

struct Rows {  // (batch, heads, length, D), last stride 1, all others multiples of 16 bytes for inputs
    void* data = nullptr;
    std::int64_t batch = 0, head = 0, row = 0;
};
struct StatePair {
    float* s = nullptr;  // (batch, heads, D, D)
    float* z = nullptr;  // (batch, heads, D)
};
struct ConstStatePair {
    const float* s = nullptr;
    const float* z = nullptr;
};

struct KernelParams {
    Rows q, k, v, out, grad_out, grad_q, grad_k, grad_v;
    const float* weight = nullptr;  // (D, D) or one per head; nullptr: q and k are phi(q) and phi(k)
    const float* bias = nullptr;
    std::int64_t weight_head = 0, bias_head = 0;
    ConstStatePair begin;  // state before the first token, or gradient of the state after the last one
    StatePair end;         // where to write the state after the last token, or the gradient of the first
    float* grad_weight = nullptr;  // (batch * heads, D, D)
    float* grad_bias = nullptr;    // (batch * heads, D)
    // Workspace
    float* states = nullptr;        // (batch * heads, segments, D * D + D): S and z at the start of a segment
    float* published = nullptr;     // (batch * heads, segments, D, D), see Traits::kStateInShared
    float* scales = nullptr;        // (2, batch * heads, length): 1 / denominator, its gradient
    float* weight_parts = nullptr;  // (2, batch * heads, segments, D * D + D)
    std::int64_t length = 0;
    float eps = 0;
    int sequences = 0, heads = 0;  // sequences: batch * heads
    int chunks = 0, segments = 1, segment_chunks = 0;
    int elementwise_blocks = 1;        // grid of scan and reduce
    bool causal = true, half = false;  // half: tensors of a `tensor` kernel are float16, not bfloat16
    bool backwards = false;            // scan: segments from the last to the first
    bool queries = false;              // sums: of phi(q) and the scaled gradient, not of phi(k) and v

    // One segment and causal: its start is known, and its end is the end of the sequence.
    ASI_HOST_DEVICE bool alone() const { return causal && segments == 1; }
};

// Bytes of shared memory and what begins where.
struct Carve {
    int bytes = 0;
    constexpr int take(int size) {
        const int at = bytes;
        bytes += (size + 15) / 16 * 16;
        return at;
    }
};

enum class Kernel { sums, forward, backward };

template <class Tr, Kernel Which>
struct Layout {
    static constexpr int kRaw = Which == Kernel::sums ? 2 : Which == Kernel::forward ? 3 : 4;
    static constexpr int kTileBytes = Tr::chunk * Tr::row * static_cast<int>(sizeof(typename Tr::Element));
    static constexpr int kChunkBytes =
        Tr::chunk * Tr::chunk_row * static_cast<int>(sizeof(typename Tr::Element));
    static constexpr int kSquareBytes = Tr::d * Tr::row * static_cast<int>(sizeof(typename Tr::Element));

    int raw = 0, phi_q = 0, phi_k = 0, state = 0, weight = 0, scores = 0, products = 0;
    int z = 0, bias = 0, scale = 0, grad_scale = 0, bytes = 0;

    constexpr Layout() {
        Carve carve;
        raw = carve.take(Tr::stages * kRaw * kTileBytes);
        phi_q = Which == Kernel::sums ? 0 : carve.take(kTileBytes);
        phi_k = carve.take(kTileBytes);
        state = Which != Kernel::sums && Tr::kStateInShared ? carve.take(kSquareBytes) : 0;
        weight = Tr::kTensor ? carve.take(kSquareBytes) : 0;
        scores = Which != Kernel::sums ? carve.take(kChunkBytes) : 0;
        products = Which == Kernel::backward ? carve.take(kChunkBytes) : 0;
        z = carve.take(Tr::d * 4);
        bias = carve.take(Tr::d * 4);
        scale = carve.take(Tr::chunk * 4);
        grad_scale = carve.take(Tr::chunk * 4);
        bytes = carve.bytes;
    }
};

template <class Tr, Kernel Which>
inline constexpr Layout<Tr, Which> kLayout{};

}  // namespace asi::linear_attention::cuda
