// AVX2 and FMA: 6 x 2 of the 16 registers are sums, which hides the latency of two FMA units.
#define ASI_VECTOR_BYTES 32
#define ASI_TILE_ROWS 6
#define ASI_FORWARD_CHUNK 48
#define ASI_BACKWARD_CHUNK 48
#include "linear_attention/kernels.h"

namespace asi::linear_attention {

const Kernels& avx2_kernels() {
    static constexpr Kernels kernels = table("avx2");
    return kernels;
}

}  // namespace asi::linear_attention
