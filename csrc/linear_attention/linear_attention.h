// Linear attention on the CPU (Katharopoulos et al. 2020, "Transformers are RNNs", equations 4, 5 and 8 to
// 12).
//
//   out_i = phi(q_i)^T S_i / (phi(q_i)^T z_i + eps)
//   S_i = S_0 + sum_j phi(k_j) v_j^T,   z_i = z_0 + sum_j phi(k_j)
//
// over j <= i (causal) or all j; phi(x) = ELU(W x + b) + 1, or the identity when there is no W.
//
// No torch, no Python: plain pointers and strides. Accumulation, weights and states are float32 for float32
// and bfloat16 tensors, float64 for float64 tensors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace asi::linear_attention {

enum class DType { f32, f64, bf16 };

struct Shape {
    std::int64_t batch = 0, heads = 0, length = 0, d_k = 0, d_phi = 0, d_v = 0;
};

// (batch, heads, length, d); strides in elements. Outputs need stride 1 in the last dimension.
struct View {
    void* data = nullptr;
    std::int64_t stride[4] = {0, 0, 0, 0};
};

// W (d_phi, d_k) and b (d_phi), rows contiguous, in the accumulation type. A head stride of 0 shares them.
struct Features {
    const void* weight = nullptr;  // nullptr: q and k are phi(q) and phi(k) already; then d_k == d_phi
    const void* bias = nullptr;    // may be nullptr
    std::int64_t weight_head = 0, bias_head = 0;
};

// S (batch, heads, d_phi, d_v) and z (batch, heads, d_phi), contiguous, in the accumulation type.
struct ConstState {
    const void* s = nullptr;
    const void* z = nullptr;
};
struct State {
    void* s = nullptr;
    void* z = nullptr;
};

struct ForwardParams {
    DType dtype = DType::f32;
    bool causal = true;
    double eps = 0.0;
    int threads = 1;
    Shape shape;
    View q, k, v, out;
    Features phi;
    ConstState initial;  // both or neither
    State final;         // both or neither
};

struct BackwardParams {
    DType dtype = DType::f32;
    bool causal = true;
    double eps = 0.0;
    int threads = 1;
    Shape shape;
    View q, k, v, out, grad_out;
    View grad_q, grad_k, grad_v;
    Features phi;
    ConstState initial;           // both or neither
    ConstState grad_final;        // each may be nullptr: no gradient reaches it
    State grad_initial;           // both or neither
    void* grad_weight = nullptr;  // (batch * heads, d_phi, d_k): one per sequence, which the caller sums
    void* grad_bias = nullptr;    // (batch * heads, d_phi)
};

// One token: q, k, v, out are (batch, heads, d), the length stride is not looked at. `final` may be
// `initial`.
struct StepParams {
    DType dtype = DType::f32;
    double eps = 0.0;
    int threads = 1;
    Shape shape;
    View q, k, v, out;
    Features phi;
    ConstState initial;
    State final;
};

// All throw std::invalid_argument on parameters that make no sense. Results do not depend on the number of
// threads.
void forward(const ForwardParams& params);
void backward(const BackwardParams& params);
void step(const StepParams& params);

// The instruction set in use: "scalar", "avx2", "avx512" or "avx512_bf16". The best one of this CPU, unless
// ASI_EVOLVE_ISA names another; throws std::runtime_error when it names one that is unknown or that this CPU
// or build does not have.
const char* isa();

// What one instruction set provides: one call handles one (batch, head) pair with scratch memory of its own.
struct Kernels {
    const char* name;
    std::size_t (*forward_scratch)(const ForwardParams&);
    void (*forward)(const ForwardParams&, std::int64_t index, std::byte* scratch);
    std::size_t (*backward_scratch)(const BackwardParams&);
    void (*backward)(const BackwardParams&, std::int64_t index, std::byte* scratch);
    std::size_t (*step_scratch)(const StepParams&);
    void (*step)(const StepParams&, std::int64_t index, std::byte* scratch);
};

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();

}  // namespace asi::linear_attention
