// One token of each sequence (Katharopoulos et al. 2020, equations 18 to 20), of any sizes: bound by reading
// and writing S once.
#pragma once

#include "linear_attention/cuda/device.cuh"

namespace asi::linear_attention::cuda {

struct StepView {
    void* data = nullptr;
    std::int64_t batch = 0, head = 0, element = 0;
};

struct StepKernelParams {
    StepView q, k, v, out;
    const float* weight = nullptr;
    const float* bias = nullptr;
    std::int64_t weight_head = 0, bias_head = 0;
    const float *s = nullptr, *z = nullptr;
    float *new_s = nullptr, *new_z = nullptr;  // may be s and z
    float eps = 0;
    int heads = 0, d_k = 0, d_phi = 0, d_v = 0;
};

constexpr int kStepThreads = 128;

// q, k; phi(q), phi(k); the denominator
inline constexpr std::int64_t step_shared_floats(std::int64_t d_k, std::int64_t d_phi) {
    return 2 * d_k + 2 * d_phi + 1;
}

template <class T>
ASI_GLOBAL(kStepThreads, 1)
step_kernel(ASI_PARAMS(StepKernelParams) p) {
    float* const q = reinterpret_cast<float*>(shared_memory());
    float* const k = q + p.d_k;
    float* const phi_q = k + p.d_k;
    float* const phi_k = phi_q + p.d_phi;
    float* const denominator = phi_k + p.d_phi;
    const int thread = thread_index(), warp = thread / 32, lane = thread % 32;
    const std::int64_t sequence = block_index(), batch = sequence / p.heads, head = sequence % p.heads;
    const auto of = [&](const StepView& x) {
        return static_cast<T*>(x.data) + batch * x.batch + head * x.head;
    };
    const T *const from_q = of(p.q), *const from_k = of(p.k), *const v = of(p.v);
    for (int i = thread; i < p.d_k; i += kStepThreads) {
        q[i] = widen(from_q[i * p.q.element]);
        k[i] = widen(from_k[i * p.k.element]);
    }
    barrier();
    if (p.weight) {
        for (int r = warp; r < p.d_phi; r += kStepThreads / 32) {
            const float* w = p.weight + head * p.weight_head + static_cast<std::int64_t>(r) * p.d_k;
            float a = 0, b = 0;
            for (int i = lane; i < p.d_k; i += 32) a += w[i] * q[i], b += w[i] * k[i];
            for (int distance = 16; distance > 0; distance /= 2) {
                a += shuffle_xor(kAllLanes, a, distance);
                b += shuffle_xor(kAllLanes, b, distance);
            }
            const float add = p.bias ? p.bias[head * p.bias_head + r] : 0.0F;
            a += add, b += add;
            if (lane == 0) {
                phi_q[r] = a > 0 ? a + 1 : exponential(a);
                phi_k[r] = b > 0 ? b + 1 : exponential(b);
            }
        }
    } else {
        for (int r = thread; r < p.d_phi; r += kStepThreads) phi_q[r] = q[r], phi_k[r] = k[r];
    }
    barrier();
    if (warp == 0) {
        float sum = 0;
        for (int r = lane; r < p.d_phi; r += 32) {
            const float z = p.z[sequence * p.d_phi + r] + phi_k[r];
            p.new_z[sequence * p.d_phi + r] = z;
            sum += phi_q[r] * z;
        }
        for (int distance = 16; distance > 0; distance /= 2) sum += shuffle_xor(kAllLanes, sum, distance);
        if (lane == 0) *denominator = sum + p.eps;
    }
    barrier();
    const float* const s = p.s + sequence * p.d_phi * p.d_v;
    float* const new_s = p.new_s + sequence * p.d_phi * p.d_v;
    for (int e = thread; e < p.d_v; e += kStepThreads) {
        const float value = widen(v[e * p.v.element]);
        float dot = 0;
        for (int r = 0; r < p.d_phi; ++r) {
            const std::int64_t at = static_cast<std::int64_t>(r) * p.d_v + e;
            const float x = s[at] + phi_k[r] * value;
            new_s[at] = x;
            dot += phi_q[r] * x;
        }
        narrow(dot / *denominator, of(p.out)[e * p.out.element]);
    }
}

}  // namespace asi::linear_attention::cuda
