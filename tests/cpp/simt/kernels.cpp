// The CUDA files themselves, as C++.
#include "linear_attention/cuda/fma.cu"
#include "linear_attention/cuda/portable.cu"
#include "linear_attention/cuda/step.cu"
#include "linear_attention/cuda/tensor.cu"
