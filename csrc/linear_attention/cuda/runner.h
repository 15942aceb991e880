// One instance of the kernels and how to launch it.
#pragma once

#include <cstdint>
#include <vector>

#include "linear_attention/cuda/cuda.h"

namespace asi::linear_attention::cuda {

struct Runner {
    Instance instance{};
    void (*forward)(const ForwardParams&, const Launch&) = nullptr;
    void (*backward)(const BackwardParams&, const Launch&) = nullptr;
    std::int64_t (*workspace_floats)(const Shape&, std::int64_t segments, bool mapped,
                                     bool backward) = nullptr;
};

std::vector<Runner> portable_runners();
std::vector<Runner> fma_runners();
std::vector<Runner> tensor_runners();
void run_step_as(const StepParams& params, const Launch& launch);

}  // namespace asi::linear_attention::cuda
