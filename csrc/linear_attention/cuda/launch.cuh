// From parameters to a sequence of launches: the same on a device and on the SIMT layer.
#pragma once

#include <stdexcept>
#include <string>

#include "linear_attention/cuda/cuda.h"
#include "linear_attention/cuda/kernels.cuh"
#include "linear_attention/cuda/step.cuh"

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#endif

namespace asi::linear_attention::cuda {

#if defined(__CUDACC__)

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    (void)cudaGetLastError();  // reported here; it must not surface at a later call
    throw std::runtime_error(std::string("linear attention: ") + what + ": " + cudaGetErrorString(status));
}

template <class Params>
void run(void (*kernel)(Params), std::int64_t grid, int threads, std::size_t shared, void* stream,
         const Params& params) {
    if (grid == 0) return;
    if (shared > 48 * 1024)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
              "cudaFuncSetAttribute");
    Params copy = params;
    void* arguments[] = {&copy};
    check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(grid)),
                           dim3(static_cast<unsigned>(threads)), arguments, shared,
                           static_cast<cudaStream_t>(stream)),
          "cudaLaunchKernel");
}

#else

template <class Params>
void run(void (*kernel)(Params), std::int64_t grid, int threads, std::size_t shared, void*,
         const Params& params) {
    simt::launch(static_cast<unsigned>(grid), static_cast<unsigned>(threads), shared,
                 [&] { kernel(params); });
}

#endif

// How the work is cut, and what of the workspace is where (in floats).
template <class Tr>
struct Plan {
    std::int64_t chunks, segment_chunks, segments, sequences;
    std::int64_t states, published, scales, weight_parts, floats;

    Plan(const Shape& shape, std::int64_t wanted_segments, bool mapped, bool backward) {
        sequences = shape.batch * shape.heads;
        chunks = (shape.length + Tr::chunk - 1) / Tr::chunk;
        const std::int64_t most = chunks < 1 ? 1 : chunks;
        segments = wanted_segments < 1 ? 1 : wanted_segments > most ? most : wanted_segments;
        segment_chunks = (chunks + segments - 1) / segments;
        if (segment_chunks > 0) segments = (chunks + segment_chunks - 1) / segment_chunks;
        floats = 0;
        const auto take = [&](std::int64_t size) {
            const std::int64_t at = floats;
            floats += (size + 3) / 4 * 4;
            return at;
        };
        const std::int64_t square = Tr::d * Tr::d;
        states = take(sequences * segments * (square + Tr::d));
        published = take(Tr::kStateInShared ? 0 : sequences * segments * square);
        scales = take(backward ? 2 * sequences * shape.length : 0);
        weight_parts = take(backward && mapped ? 2 * sequences * segments * (square + Tr::d) : 0);
    }
};

inline Rows rows_of(const View& view) { return {view.data, view.stride[0], view.stride[1], view.stride[2]}; }

template <class Tr>
KernelParams kernel_params(const Shape& shape, const Features& phi, bool causal, double eps,
                           const Plan<Tr>& plan, const Launch& launch) {
    KernelParams p;
    p.weight = static_cast<const float*>(phi.weight), p.bias = static_cast<const float*>(phi.bias);
    p.weight_head = phi.weight_head, p.bias_head = phi.bias_head;
    auto* const workspace = static_cast<float*>(launch.workspace);
    p.states = workspace + plan.states, p.published = workspace + plan.published;
    p.scales = workspace + plan.scales, p.weight_parts = workspace + plan.weight_parts;
    p.length = shape.length, p.eps = static_cast<float>(eps);
    p.sequences = static_cast<int>(plan.sequences), p.heads = static_cast<int>(shape.heads);
    p.chunks = static_cast<int>(plan.chunks), p.segments = static_cast<int>(plan.segments);
    p.segment_chunks = static_cast<int>(plan.segment_chunks);
    const std::int64_t blocks = (plan.sequences * (Tr::d * Tr::d + Tr::d) + 255) / 256;
    p.elementwise_blocks =
        static_cast<int>(blocks < launch.elementwise_blocks ? blocks : launch.elementwise_blocks);
    p.causal = causal, p.half = launch.type == ElementType::f16;
    return p;
}

inline ConstStatePair pair_of(const ConstState& x) {
    return {static_cast<const float*>(x.s), static_cast<const float*>(x.z)};
}
inline StatePair pair_of(const State& x) { return {static_cast<float*>(x.s), static_cast<float*>(x.z)}; }

// States at the start of all segments, unless there is but one whose start is known.
template <class Tr>
void run_states(const KernelParams& p, void* stream) {
    if (p.alone()) return;
    run(sums_kernel<Tr>, std::int64_t{p.sequences} * p.segments, Tr::threads, kLayout<Tr, Kernel::sums>.bytes,
        stream, p);
    run(scan_kernel<Tr::d>, p.elementwise_blocks, 256, 0, stream, p);
}

template <class Tr>
void run_forward(const ForwardParams& params, const Launch& launch) {
    const Plan<Tr> plan(params.shape, launch.segments, params.phi.weight, false);
    KernelParams p = kernel_params<Tr>(params.shape, params.phi, params.causal, params.eps, plan, launch);
    p.q = rows_of(params.q), p.k = rows_of(params.k), p.v = rows_of(params.v), p.out = rows_of(params.out);
    p.begin = pair_of(params.initial), p.end = pair_of(params.final);
    run_states<Tr>(p, launch.stream);
    run(forward_kernel<Tr>, plan.sequences * plan.segments, Tr::threads, kLayout<Tr, Kernel::forward>.bytes,
        launch.stream, p);
}

template <class Tr>
void run_backward(const BackwardParams& params, const Launch& launch) {
    const Plan<Tr> plan(params.shape, launch.segments, params.phi.weight, true);
    KernelParams p = kernel_params<Tr>(params.shape, params.phi, params.causal, params.eps, plan, launch);
    p.q = rows_of(params.q), p.k = rows_of(params.k), p.v = rows_of(params.v), p.out = rows_of(params.out);
    p.grad_out = rows_of(params.grad_out), p.grad_q = rows_of(params.grad_q);
    p.grad_k = rows_of(params.grad_k), p.grad_v = rows_of(params.grad_v);
    p.grad_weight = static_cast<float*>(params.grad_weight),
    p.grad_bias = static_cast<float*>(params.grad_bias);
    const std::int64_t grid = plan.sequences * plan.segments;
    constexpr int shared = kLayout<Tr, Kernel::backward>.bytes;

    p.begin = pair_of(params.initial);
    run_states<Tr>(p, launch.stream);
    run(backward_kernel<Tr, Side::query>, grid, Tr::threads, shared, launch.stream, p);

    p.begin = pair_of(params.grad_final), p.end = pair_of(params.grad_initial);
    p.queries = p.backwards = true;
    run_states<Tr>(p, launch.stream);
    run(backward_kernel<Tr, Side::key>, grid, Tr::threads, shared, launch.stream, p);

    if (p.weight && p.grad_weight) {
        run(reduce_kernel<Tr::d>, p.elementwise_blocks, 256, 0, launch.stream, p);
    }
}

template <class T>
void run_step(const StepParams& params, const Launch& launch) {
    const Shape& shape = params.shape;
    StepKernelParams p;
    const auto view = [](const View& x) { return StepView{x.data, x.stride[0], x.stride[1], x.stride[3]}; };
    p.q = view(params.q), p.k = view(params.k), p.v = view(params.v), p.out = view(params.out);
    p.weight = static_cast<const float*>(params.phi.weight),
    p.bias = static_cast<const float*>(params.phi.bias);
    p.weight_head = params.phi.weight_head, p.bias_head = params.phi.bias_head;
    p.s = static_cast<const float*>(params.initial.s), p.z = static_cast<const float*>(params.initial.z);
    p.new_s = static_cast<float*>(params.final.s), p.new_z = static_cast<float*>(params.final.z);
    p.eps = static_cast<float>(params.eps);
    p.heads = static_cast<int>(shape.heads), p.d_k = static_cast<int>(shape.d_k);
    p.d_phi = static_cast<int>(shape.d_phi), p.d_v = static_cast<int>(shape.d_v);
    run(step_kernel<T>, shape.batch * shape.heads, kStepThreads,
        static_cast<std::size_t>(step_shared_floats(shape.d_k, shape.d_phi)) * 4, launch.stream, p);
}

}  // namespace asi::linear_attention::cuda
