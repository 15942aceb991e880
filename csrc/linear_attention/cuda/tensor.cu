#include "linear_attention/cuda/runners.cuh"

namespace asi::linear_attention::cuda {

std::vector<Runner> tensor_runners() { return runners<Math::tensor>(); }

}  // namespace asi::linear_attention::cuda
