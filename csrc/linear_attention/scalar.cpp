// For any CPU: vectors of 16 bytes, which every 64-bit target has (SSE2, NEON) and the compiler emulates
// elsewhere.
#define ASI_VECTOR_BYTES 16
#define ASI_TILE_ROWS 4
#define ASI_FORWARD_CHUNK 32
#define ASI_BACKWARD_CHUNK 32
#include "linear_attention/kernels.h"

namespace asi::linear_attention {

const Kernels& scalar_kernels() {
    static constexpr Kernels kernels = table("scalar");
    return kernels;
}

}  // namespace asi::linear_attention
