// AVX-512 F, DQ, BW, VL.
#define ASI_VECTOR_BYTES 64
#define ASI_TILE_ROWS 8
#define ASI_FORWARD_CHUNK 32
#define ASI_BACKWARD_CHUNK 32
#include "linear_attention/kernels.h"

namespace asi::linear_attention {

const Kernels& avx512_kernels() {
    static constexpr Kernels kernels = table("avx512");
    return kernels;
}

}  // namespace asi::linear_attention
