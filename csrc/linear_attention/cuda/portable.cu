// Compiled for Turing too: whatever needs cp.async or mma is elsewhere.
#include "linear_attention/cuda/runners.cuh"

namespace asi::linear_attention::cuda {

std::vector<Runner> portable_runners() { return runners<Math::portable>(); }

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
