#include "linear_attention/cuda/launch.cuh"
#include "linear_attention/cuda/runner.h"

namespace asi::linear_attention::cuda {

void run_step_as(const StepParams& params, const Launch& launch) {
    switch (launch.type) {
        case ElementType::bf16:
            return run_step<bf16>(params, launch);
        case ElementType::f16:
            return run_step<f16>(params, launch);
        default:
            return run_step<float>(params, launch);
    }
}

}  // namespace asi::linear_attention::cuda
