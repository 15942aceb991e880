// The kernels. A sequence is cut into segments of several chunks; a block walks over the chunks of one
// segment with the running state in registers.
//
//   sums      of each segment: S = sum phi(k) v^T, z = sum phi(k); for gradients T = sum phi(q) gn^T, t = sum
//   phi(q) gd scan      over the segments: the state at the start of each forward   out_i = (phi(q_i)^T S +
//   sum_{j <= i} scores_ij v_j) / den_i backward  for queries, then for keys and values, from the last chunk
//   to the first reduce    the weight gradients of the segments to one of each sequence
//
// With g = grad_out, gn_i = g_i / den_i, gd_i = -(g_i . out_i) / den_i, P_ij = gn_i . v_j + gd_i (j <= i):
//
//   grad phi(q) = P phi(K) + gn S^T + gd z^T        grad phi(k) = P^T phi(Q) + V T^T + 1 t^T
//                                                   grad v      = scores^T gn + phi(K) T
//
// (Katharopoulos et al. 2020, equations 13 to 15, by chunks and with the normaliser.) phi is computed anew.
#pragma once

#include "linear_attention/cuda/block.cuh"

namespace asi::linear_attention::cuda {

template <class Tr>
ASI_GLOBAL(Tr::threads, Tr::min_blocks)
sums_kernel(ASI_PARAMS(KernelParams) p) {
    using T = typename Tr::Element;
    constexpr auto at = kLayout<Tr, Kernel::sums>;
    const Walker<Tr> block(p);
    const T* const weight = block.weight(at.weight);
    float *const bias = block.vector(at.bias), *const z = block.vector(at.z);
    float *const scale = block.vector(at.scale), *const grad_scale = block.vector(at.grad_scale);
    T* const phi = block.tile(at.phi_k);
    block.read_bias(bias);
    for (int i = block.thread; i < Tr::d; i += Tr::threads) z[i] = 0;
    typename Tr::template Tile<Tr::d, Tr::d> state;
    const Rows &x = p.queries ? p.q : p.k, &y = p.queries ? p.grad_out : p.v;
    const auto tile = [&](int stage, int which) {
        return block.tile(at.raw + (2 * stage + which) * at.kTileBytes);
    };
    for (int i = 0; i < block.count; ++i) {
        const int chunk = block.first + i, n = block.valid(chunk);
        const int stage = block.arrive(i, chunk, chunk + 1, [&](int which, int to) {
            block.load(x, which, tile(to, 0));
            block.load(y, which, tile(to, 1));
        });
        T *const raw = tile(stage, 0), *const values = tile(stage, 1);
        block.convert(raw), block.convert(values);
        if (p.queries && block.thread < Tr::chunk) {
            const std::int64_t token = block.sequence * p.length + block.start(chunk) + block.thread;
            const bool there = block.thread < n;
            scale[block.thread] = there ? p.scales[token] : 0.0F;
            grad_scale[block.thread] = there ? p.scales[p.sequences * p.length + token] : 0.0F;
        }
        barrier();
        block.features(raw, weight, bias, n, phi);
        if (p.queries) block.scale_rows(values, scale);
        barrier();
        state.template add<true, false, Tr::chunk>(phi, Tr::row, values, Tr::row);
        block.add_columns(phi, p.queries ? grad_scale : nullptr, z);
        barrier();  // before the tiles are written again
    }
    float* const to = p.states + block.slot() * (Tr::d * Tr::d + Tr::d);
    block.write_state(state, z, to, to + Tr::d * Tr::d);
}

// Each thread takes elements of S and z of the sequences in turn.
template <int D>
ASI_GLOBAL(256, 1)
scan_kernel(ASI_PARAMS(KernelParams) p) {
    constexpr int size = D * D + D;
    const std::int64_t all = static_cast<std::int64_t>(p.sequences) * size;
    for (std::int64_t index = std::int64_t{block_index()} * 256 + thread_index(); index < all;
         index += std::int64_t{256} * p.elementwise_blocks) {
        const std::int64_t sequence = index / size;
        const int element = static_cast<int>(index % size);
        const bool in_s = element < D * D;
        const float* begin = in_s ? p.begin.s : p.begin.z;
        const std::int64_t place = in_s ? sequence * D * D + element : sequence * D + element - D * D;
        float total = begin ? begin[place] : 0.0F;
        float* const states = p.states + sequence * p.segments * size + element;
        for (int i = 0; i < p.segments; ++i) {
            float& state = states[std::int64_t{p.backwards ? p.segments - 1 - i : i} * size];
            const float own = state;
            state = total;
            total += own;
        }
        if (!p.causal) states[0] = total;
        float* const end = in_s ? p.end.s : p.end.z;
        if (end) end[place] = total;
    }
}

template <class Tr>
ASI_GLOBAL(Tr::threads, Tr::min_blocks)
forward_kernel(ASI_PARAMS(KernelParams) p) {
    using T = typename Tr::Element;
    constexpr auto at = kLayout<Tr, Kernel::forward>;
    constexpr int row = Tr::row;
    const Walker<Tr> block(p);
    const T* const weight = block.weight(at.weight);
    float *const bias = block.vector(at.bias), *const z = block.vector(at.z),
                 *const scale = block.vector(at.scale);
    T *const phi_q = block.tile(at.phi_q), *const phi_k = block.tile(at.phi_k),
             *const scores = block.tile(at.scores);
    T* const published = block.state_tile(at.state);
    block.read_bias(bias);
    typename Tr::template Tile<Tr::d, Tr::d> state;
    block.read_state(state, z);
    const auto tile = [&](int stage, int which) {
        return block.tile(at.raw + (3 * stage + which) * at.kTileBytes);
    };
    for (int i = 0; i < block.count; ++i) {
        const int chunk = block.first + i, n = block.valid(chunk);
        const int stage = block.arrive(i, chunk, chunk + 1, [&](int which, int to) {
            block.load(p.q, which, tile(to, 0));
            if (!p.causal) return;
            block.load(p.k, which, tile(to, 1));
            block.load(p.v, which, tile(to, 2));
        });
        T *const q = tile(stage, 0), *const k = tile(stage, 1), *const v = tile(stage, 2);
        block.convert(q);
        if (p.causal) block.convert(k), block.convert(v);
        if (p.causal || i == 0) block.publish(state, published);
        barrier();  // the tiles have arrived
        block.features(q, weight, bias, n, phi_q);
        if (p.causal) block.features(k, weight, bias, n, phi_k);
        barrier();  // phi is complete
        if (p.causal) {
            block.masked_product(phi_q, phi_k, nullptr, scores);
            barrier();  // the scores are complete
        }
        const float denominator = block.denominator(phi_q, z, scores);
        if (block.thread % Tr::lanes_a_row == 0) scale[block.thread / Tr::lanes_a_row] = 1.0F / denominator;
        typename Tr::template Tile<Tr::chunk, Tr::d> out;
        out.template add<false, false, Tr::d>(phi_q, row, published, Tr::state_row);
        if (p.causal) out.template add<false, false, Tr::chunk>(scores, Tr::chunk_row, v, row);
        barrier();  // the scales are complete, z has been read
        out.pairs([&](int r, int j, float a, float b) {
            if (r < n) block.store(p.out, chunk, r, j, a * scale[r], b * scale[r]);
        });
        if (p.causal) {
            state.template add<true, false, Tr::chunk>(phi_k, row, v, row);
            block.add_columns(phi_k, nullptr, z);
        }
        barrier();  // before the tiles are written again
    }
    block.write_end(state, z);
}

enum class Side { query, key };

template <class Tr, Side Of>
ASI_GLOBAL(Tr::threads, Tr::min_blocks)
backward_kernel(ASI_PARAMS(KernelParams) p) {
    using T = typename Tr::Element;
    constexpr auto at = kLayout<Tr, Kernel::backward>;
    constexpr int row = Tr::row, d = Tr::d, c = Tr::chunk;
    constexpr bool query = Of == Side::query;
    const Walker<Tr> block(p);
    const T* const weight = block.weight(at.weight);
    float *const bias = block.vector(at.bias), *const z = block.vector(at.z);
    float *const scale = block.vector(at.scale), *const grad_scale = block.vector(at.grad_scale);
    T *const phi_q = block.tile(at.phi_q), *const phi_k = block.tile(at.phi_k);
    T *const scores = block.tile(at.scores), *const products = block.tile(at.products);
    T* const published = block.state_tile(at.state);
    T* const phi = query ? phi_q : phi_k;  // of what the gradient is of
    block.read_bias(bias);
    typename Tr::template Tile<d, d> state, grad_weight;
    float grad_bias = 0;  // of column `thread`
    block.read_state(state, z);
    const auto tile = [&](int stage, int which) {
        return block.tile(at.raw + (4 * stage + which) * at.kTileBytes);
    };
    for (int i = 0; i < block.count; ++i) {
        const int chunk = query ? block.first + i : block.first + block.count - 1 - i, n = block.valid(chunk);
        const int stage = block.arrive(i, chunk, query ? chunk + 1 : chunk - 1, [&](int which, int to) {
            if (query || p.causal)
                block.load(p.q, which, tile(to, 0)), block.load(p.grad_out, which, tile(to, 3));
            if (!query || p.causal) block.load(p.k, which, tile(to, 1)), block.load(p.v, which, tile(to, 2));
        });
        T *const q = tile(stage, 0), *const k = tile(stage, 1), *const v = tile(stage, 2),
                 *const g = tile(stage, 3);
        if (query || p.causal) block.convert(q), block.convert(g);
        if (!query || p.causal) block.convert(k), block.convert(v);
        if (p.causal || i == 0) block.publish(state, published);
        const std::int64_t first_token = block.sequence * p.length + block.start(chunk);
        const std::int64_t all_tokens = p.sequences * p.length;
        if (!query && p.causal && block.thread < c) {
            const bool there = block.thread < n;
            scale[block.thread] = there ? p.scales[first_token + block.thread] : 0.0F;
            grad_scale[block.thread] = there ? p.scales[all_tokens + first_token + block.thread] : 0.0F;
        }
        barrier();  // the tiles have arrived
        if (query || p.causal) block.features(q, weight, bias, n, phi_q);
        if (!query || p.causal) block.features(k, weight, bias, n, phi_k);
        if (!query && p.causal) block.scale_rows(g, scale);
        barrier();  // phi is complete
        if (p.causal) {
            block.masked_product(phi_q, phi_k, nullptr, scores);
            if (query) barrier();  // the scores are complete
        }
        if constexpr (query) {
            const int r = block.thread / Tr::lanes_a_row, lane = block.thread % Tr::lanes_a_row;
            const float inverse = 1.0F / block.denominator(phi_q, z, scores);
            float dot = 0;
            if (r < n) {
                const T* out = block.template rows<T>(p.out, chunk) + r * p.out.row;
                for (int e = lane; e < d; e += Tr::lanes_a_row)
                    dot += widen(g[r * row + e]) * block.global(out + e);
            }
            dot = block.across_row(dot);
            if (lane == 0) {
                scale[r] = r < n ? inverse : 0.0F;
                grad_scale[r] = r < n ? -dot * inverse : 0.0F;
                if (r < n)
                    p.scales[first_token + r] = inverse,
                                           p.scales[all_tokens + first_token + r] = -dot * inverse;
            }
            barrier();  // the scales are complete
            block.scale_rows(g, scale);
            barrier();  // the scaled gradient is complete
        }
        if (p.causal) {
            block.masked_product(g, v, grad_scale, products);
            barrier();  // the products are complete
        }
        typename Tr::template Tile<c, d> grad;
        if constexpr (query) {
            if (p.causal) grad.template add<false, false, c>(products, Tr::chunk_row, phi_k, row);
            grad.template add<false, true, d>(g, row, published, Tr::state_row);
            grad.pairs([&](int r, int j, float& a, float& b) {
                a += grad_scale[r] * z[j], b += grad_scale[r] * z[j + 1];
            });
        } else {
            if (p.causal) grad.template add<true, false, c>(scores, Tr::chunk_row, g, row);
            grad.template add<false, false, d>(phi_k, row, published, Tr::state_row);
            grad.pairs([&](int r, int j, float a, float b) {
                if (r < n) block.store(p.grad_v, chunk, r, j, a, b);
            });
            grad.clear();
            if (p.causal) grad.template add<true, false, c>(products, Tr::chunk_row, phi_q, row);
            grad.template add<false, true, d>(v, row, published, Tr::state_row);
            grad.pairs([&](int, int j, float& a, float& b) { a += z[j], b += z[j + 1]; });
        }
        barrier();  // phi, state and z have been read
        const Rows& to = query ? p.grad_q : p.grad_k;
        if (p.weight) {
            // Through ELU: its slope is min(phi, 1). The gradient of W x + b takes the place of phi.
            grad.pairs([&](int r, int j, float a, float b) {
                const float x = widen(phi[r * row + j]), y = widen(phi[r * row + j + 1]);
                store_pair(phi + r * row + j, a * (x < 1 ? x : 1.0F), b * (y < 1 ? y : 1.0F));
            });
            barrier();  // the gradient of W x + b is complete
            typename Tr::template Tile<c, d> grad_x;
            grad_x.template add<false, false, d>(phi, row, weight, Tr::weight_row);
            grad_x.pairs([&](int r, int j, float a, float b) {
                if (r < n) block.store(to, chunk, r, j, a, b);
            });
            grad_weight.template add<true, false, c>(phi, row, query ? q : k, row);
            if (block.thread < d)
                for (int r = 0; r < c; ++r) grad_bias += widen(phi[r * row + block.thread]);
        } else {
            grad.pairs([&](int r, int j, float a, float b) {
                if (r < n) block.store(to, chunk, r, j, a, b);
            });
        }
        if (p.causal) {
            state.template add<true, false, c>(query ? phi_k : phi_q, row, query ? v : g, row);
            block.add_columns(query ? phi_k : phi_q, query ? nullptr : grad_scale, z);
        }
        barrier();  // before the tiles are written again
    }
    if constexpr (!query) block.write_end(state, z);
    if (!p.weight || !p.grad_weight) return;
    const std::int64_t slot =
        (query ? 0 : static_cast<std::int64_t>(p.sequences) * p.segments) + block.slot();
    float* const parts = p.weight_parts + slot * (d * d + d);
    grad_weight.pairs([&](int r, int j, float a, float b) { store_pair(parts + r * d + j, a, b); });
    if (block.thread < d) parts[d * d + block.thread] = grad_bias;
}

// Each thread takes elements of the gradients of W and b in turn, and adds up in an order that is always the
// same.
template <int D>
ASI_GLOBAL(256, 1)
reduce_kernel(ASI_PARAMS(KernelParams) p) {
    constexpr int size = D * D + D;
    const std::int64_t all = static_cast<std::int64_t>(p.sequences) * size;
    const std::int64_t side = p.segments * all;
    for (std::int64_t index = std::int64_t{block_index()} * 256 + thread_index(); index < all;
         index += std::int64_t{256} * p.elementwise_blocks) {
        const std::int64_t sequence = index / size;
        const int element = static_cast<int>(index % size);
        const float* const parts = p.weight_parts + sequence * p.segments * size + element;
        float total = 0;
        for (int i = 0; i < p.segments; ++i)
            total += parts[std::int64_t{i} * size] + parts[side + std::int64_t{i} * size];
        if (element < D * D)
            p.grad_weight[sequence * D * D + element] = total;
        else if (p.grad_bias)
            p.grad_bias[sequence * D + element - D * D] = total;
    }
}

}  // namespace asi::linear_attention::cuda
