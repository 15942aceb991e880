// The table of one instruction set: included once by each of scalar.cpp, avx2.cpp and avx512.cpp.
#pragma once

#include "linear_attention/backward.h"
#include "linear_attention/step.h"

namespace asi::linear_attention {
namespace {

#define ASI_BY_DTYPE(function, params, ...)                               \
    switch ((params).dtype) {                                             \
        case DType::f64:                                                  \
            return function<double>(params __VA_OPT__(, ) __VA_ARGS__);   \
        case DType::bf16:                                                 \
            return function<BFloat16>(params __VA_OPT__(, ) __VA_ARGS__); \
        default:                                                          \
            return function<float>(params __VA_OPT__(, ) __VA_ARGS__);    \
    }

std::size_t forward_scratch(const ForwardParams& p) { ASI_BY_DTYPE(forward_scratch_as, p) }
void forward_one(const ForwardParams& p, std::int64_t i, std::byte* m){
    ASI_BY_DTYPE(forward_as, p, i, m)} std::size_t backward_scratch(const BackwardParams& p) {
    ASI_BY_DTYPE(backward_scratch_as, p)
}
void backward_one(const BackwardParams& p, std::int64_t i, std::byte* m){
    ASI_BY_DTYPE(backward_as, p, i, m)} std::size_t step_scratch(const StepParams& p) {
    ASI_BY_DTYPE(step_scratch_as, p)
}
void step_one(const StepParams& p, std::int64_t i, std::byte* m) { ASI_BY_DTYPE(step_as, p, i, m) }

#undef ASI_BY_DTYPE

constexpr Kernels table(const char* name) {
    return {name, forward_scratch, forward_one, backward_scratch, backward_one, step_scratch, step_one};
}

}  // namespace
}  // namespace asi::linear_attention
