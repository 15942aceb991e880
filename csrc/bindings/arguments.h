// How Python passes tensors: addresses, strides, sizes.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

#include "linear_attention/linear_attention.h"

namespace asi::bindings {

using Address = std::uintptr_t;
using Sizes = std::array<std::int64_t, 6>;  // batch, heads, length, d_k, d_phi, d_v
using Strides = std::array<std::int64_t, 4>;
using Tensor = std::pair<Address, Strides>;
using Pair = std::pair<Address, Address>;  // S and z; 0 for none
using Weights =
    std::tuple<Address, std::int64_t, Address, std::int64_t>;  // W, its head stride, b, its head stride

inline linear_attention::Shape shape(const Sizes& n) { return {n[0], n[1], n[2], n[3], n[4], n[5]}; }

inline void* pointer(Address address) { return reinterpret_cast<void*>(address); }

inline linear_attention::View view(const Tensor& tensor) {
    const auto& [address, s] = tensor;
    return {pointer(address), {s[0], s[1], s[2], s[3]}};
}

inline linear_attention::Features features(const Weights& weights) {
    const auto& [w, w_head, b, b_head] = weights;
    return {pointer(w), pointer(b), w_head, b_head};
}

inline linear_attention::ConstState state(const Pair& pair) {
    return {pointer(pair.first), pointer(pair.second)};
}
inline linear_attention::State new_state(const Pair& pair) {
    return {pointer(pair.first), pointer(pair.second)};
}

}  // namespace asi::bindings
