// Linear attention on CUDA devices: the mathematics and parameters of linear_attention.h, all pointers to
// device memory. `dtype` and `threads` of the parameters are not looked at.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "linear_attention/linear_attention.h"

namespace asi::linear_attention::cuda {

enum class ElementType { f32, bf16, f16 };  // of q, k, v, out and their gradients

// How a call runs.
struct Launch {
    ElementType type = ElementType::f32;
    void* stream = nullptr;  // cudaStream_t
    int device = 0;
    void* workspace =
        nullptr;  // of workspace_bytes(), 16-byte aligned; may be used again after the call on the stream
    std::int64_t segments = 0;  // a sequence is cut into so many; 0: as many as keep the device busy
    std::int64_t elementwise_blocks = 2048;  // at most, of the kernels that scan states
    bool portable = false;  // float32: the variant without cp.async, also where the other one would run
};

// One instance of the kernels.
struct Instance {
    const char* variant;  // portable, fma or tensor
    std::vector<ElementType> types;
    int d, chunk, threads, stages;
    int shared_sums, shared_forward, shared_backward;  // bytes a block
};
const std::vector<Instance>& instances();

// What the binaries in this build are for: "sm_80" and the like, "compute_90" for PTX. Empty without CUDA.
std::vector<std::string> architectures();

// Why these kernels cannot run a forward or backward pass of this type and shape on this device; empty when
// they can.
std::string unsupported(ElementType type, const Shape& shape, int device);

// Device memory that a call needs; independent of the length but for two floats a token (backward) and one
// state a segment of several chunks.
std::size_t forward_workspace_bytes(const Shape& shape, bool mapped, const Launch& launch);
std::size_t backward_workspace_bytes(const Shape& shape, bool mapped, const Launch& launch);

// Inputs: last stride 1; addresses and all other strides multiples of 16 bytes; weight and states contiguous.
// Asynchronous on the stream. std::invalid_argument on parameters that make no sense, std::runtime_error with
// the text of a failed CUDA call.
void forward(const ForwardParams& params, const Launch& launch);
void backward(const BackwardParams& params, const Launch& launch);
void step(const StepParams& params, const Launch& launch);  // any sizes and strides

}  // namespace asi::linear_attention::cuda
