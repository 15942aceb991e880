// Compiled for Turing too: whatever needs cp.async or mma is elsewhere.
#include "linear_attention/cuda/runners.cuh"

namespace asi::linear_attention::cuda {

std::vector<Runner> portable_runners() { return runners<Math::portable>(); }

}  // namespace asi::linear_attention::cuda
