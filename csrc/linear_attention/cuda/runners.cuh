// The table of instances: what a .cu file instantiates on a device, and a test on the SIMT layer.
#pragma once

#include "linear_attention/cuda/launch.cuh"
#include "linear_attention/cuda/runner.h"

namespace asi::linear_attention::cuda {

template <class Tr>
Runner runner() {
    constexpr int most =
        Tr::kMath == Math::portable ? 64 * 1024 : 163 * 1024;  // of Turing, of compute capability 8.0
    static_assert(kLayout<Tr, Kernel::sums>.bytes <= most && kLayout<Tr, Kernel::forward>.bytes <= most &&
                  kLayout<Tr, Kernel::backward>.bytes <= most);
    Runner made;
    made.instance.variant = Tr::kMath == Math::portable ? "portable"
                            : Tr::kMath == Math::fma    ? "fma"
                                                        : "tensor";
    if (Tr::kTensor)
        made.instance.types = {ElementType::bf16, ElementType::f16};
    else
        made.instance.types = {ElementType::f32};
    made.instance.d = Tr::d, made.instance.chunk = Tr::chunk;
    made.instance.threads = Tr::threads, made.instance.stages = Tr::stages;
    made.instance.shared_sums = kLayout<Tr, Kernel::sums>.bytes;
    made.instance.shared_forward = kLayout<Tr, Kernel::forward>.bytes;
    made.instance.shared_backward = kLayout<Tr, Kernel::backward>.bytes;
    made.forward = run_forward<Tr>;
    made.backward = run_backward<Tr>;
    made.workspace_floats = [](const Shape& shape, std::int64_t segments, bool mapped, bool backward) {
        return Plan<Tr>(shape, segments, mapped, backward).floats;
    };
    return made;
}

template <Math Kind>
std::vector<Runner> runners() {
    return {runner<Traits<Kind, 32>>(), runner<Traits<Kind, 64>>(), runner<Traits<Kind, 128>>()};
}

}  // namespace asi::linear_attention::cuda
