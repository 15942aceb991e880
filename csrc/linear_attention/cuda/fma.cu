#include "linear_attention/cuda/runners.cuh"

namespace asi::linear_attention::cuda {

std::vector<Runner> fma_runners() { return runners<Math::fma>(); }

}  // namespace asi::linear_attention::cuda
