// One wrapper for what is not plain C++ in the kernels: on the device intrinsics and PTX, on the host the
// SIMT layer of csrc/simt. The kernels include nothing else.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#define ASI_DEVICE __device__ __forceinline__
#define ASI_GLOBAL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define ASI_HOST_DEVICE __host__ __device__ inline
#define ASI_PARAMS(type) \
    const __grid_constant__ type  // stays where it is: its members may be chosen by address
#define ASI_UNROLL _Pragma("unroll")
#else
#include <algorithm>
#include <cmath>
#include <source_location>

#include "simt/simt.h"
#define ASI_DEVICE inline
#define ASI_HOST_DEVICE inline
#define ASI_GLOBAL(threads, blocks) void
#define ASI_PARAMS(type) const type
#define ASI_UNROLL
// Exchanges between lanes go past ThreadSanitizer: they do not order memory.
#define ASI_UNSEEN __attribute__((no_sanitize("thread")))
#endif

namespace asi::linear_attention::cuda {

// Storage types; arithmetic is in float.
struct alignas(2) bf16 {
    std::uint16_t bits;
};
struct alignas(2) f16 {
    std::uint16_t bits;
};
struct alignas(4) Pair16 {
    std::uint32_t bits;  // the first element in the low half
};

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

#if defined(__CUDACC__)

ASI_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
ASI_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
ASI_DEVICE unsigned char* shared_memory() {
    extern __shared__ __align__(128) unsigned char asi_shared[];
    return asi_shared;
}
ASI_DEVICE void barrier() { __syncthreads(); }
ASI_DEVICE float shuffle_xor(unsigned mask, float x, int distance) {
    return __shfl_xor_sync(mask, x, distance);
}
ASI_DEVICE float exponential(float x) { return expf(x); }

ASI_DEVICE std::uint32_t float_bits(float x) { return __float_as_uint(x); }
ASI_DEVICE float bits_float(std::uint32_t x) { return __uint_as_float(x); }
ASI_DEVICE float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
ASI_DEVICE void narrow(float x, f16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

#else

inline int thread_index() { return static_cast<int>(simt::here().thread.x); }
inline int block_index() { return static_cast<int>(simt::here().block.x); }
inline unsigned char* shared_memory() { return reinterpret_cast<unsigned char*>(simt::here().shared); }
inline void barrier(const simt::Site& site = simt::Site::current()) { simt::barrier(site); }
inline float shuffle_xor(unsigned mask, float x, int distance,
                         const simt::Site& site = simt::Site::current()) {
    struct In {
        float x;
        int distance;
    } in{x, distance};
    float out;
    const auto op = [](const void* const* ins, void* const* outs) ASI_UNSEEN {
        for (int lane = 0; lane < 32; ++lane) {
            if (!ins[lane]) continue;
            const int from = lane ^ static_cast<const In*>(ins[lane])->distance;
            // A lane outside the mask gives nothing that may be used.
            const In* source = from < 32 ? static_cast<const In*>(ins[from]) : nullptr;
            *static_cast<float*>(outs[lane]) = source ? source->x : NAN;
        }
    };
    simt::collective(mask, op, &in, &out, site);
    return out;
}
inline float exponential(float x) { return std::exp(x); }

inline std::uint32_t float_bits(float x) {
    std::uint32_t y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline float bits_float(std::uint32_t x) {
    float y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline float widen(f16 x) {
    const std::uint32_t sign = (x.bits & 0x8000U) << 16, exponent = x.bits >> 10 & 31,
                        fraction = x.bits & 1023;
    if (exponent == 0) return (sign ? -1.0F : 1.0F) * std::ldexp(static_cast<float>(fraction), -24);
    const std::uint32_t high = exponent == 31 ? 255 : exponent + 112;
    return bits_float(sign | high << 23 | fraction << 13);
}
inline void narrow(float x, f16& y) {  // to nearest, ties to even
    const std::uint32_t sign = float_bits(x) >> 16 & 0x8000U;
    const float a = std::fabs(x);
    if (std::isnan(x)) {
        y.bits = 0x7FFF;
    } else if (a >= 65520.0F) {
        y.bits = static_cast<std::uint16_t>(sign | 0x7C00U);
    } else if (a < 6.103515625e-05F) {
        y.bits =
            static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyint(std::ldexp(a, 24))));
    } else {
        const std::uint32_t bits = float_bits(a);
        const std::uint32_t rounded = bits + 0xFFFU + (bits >> 13 & 1U) - (112U << 23);
        y.bits = static_cast<std::uint16_t>(sign | rounded >> 13);
    }
}

#endif

ASI_DEVICE float widen(float x) { return x; }
ASI_DEVICE void narrow(float x, float& y) { y = x; }
ASI_DEVICE float widen(bf16 x) { return bits_float(static_cast<std::uint32_t>(x.bits) << 16); }
ASI_DEVICE void narrow(float x, bf16& y) {  // to nearest, ties to even; NaN stays NaN
    const std::uint32_t bits = float_bits(x);
    const std::uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
    y.bits = static_cast<std::uint16_t>(x == x ? rounded : 0x7FFFU);
}

// Two neighbours in one store; `to` is aligned to both together.
ASI_DEVICE void store_pair(float* to, float a, float b) {
#if defined(__CUDACC__)
    *reinterpret_cast<float2*>(to) = make_float2(a, b);
#else
    to[0] = a, to[1] = b;
#endif
}
template <class T>
ASI_DEVICE void store_pair(T* to, float a, float b) {
    T x, y;
    narrow(a, x), narrow(b, y);
    reinterpret_cast<Pair16*>(to)->bits = x.bits | static_cast<std::uint32_t>(y.bits) << 16;
}

// 16 bytes at once
ASI_DEVICE void copy16(void* to, const void* from) {
#if defined(__CUDACC__)
    *static_cast<int4*>(to) = *static_cast<const int4*>(from);
#else
    auto* t = static_cast<std::uint64_t*>(to);
    const auto* f = static_cast<const std::uint64_t*>(from);
    t[0] = f[0], t[1] = f[1];
#endif
}
ASI_DEVICE void zero16(void* to) {
#if defined(__CUDACC__)
    *static_cast<int4*>(to) = make_int4(0, 0, 0, 0);
#else
    auto* t = static_cast<std::uint64_t*>(to);
    t[0] = 0, t[1] = 0;
#endif
}
struct Four {
    float x[4];
};
ASI_DEVICE Four load4(const float* from) {
#if defined(__CUDACC__)
    const float4 v = *reinterpret_cast<const float4*>(from);
    return {{v.x, v.y, v.z, v.w}};
#else
    return {{from[0], from[1], from[2], from[3]}};
#endif
}

// --- asynchronous copies of 16 bytes from global to shared memory (PTX ISA: cp.async, compute
// capability 8.0) ----

#if defined(__CUDACC__)

ASI_DEVICE std::uint32_t shared_address(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
// Not `valid`: 16 bytes of zeros, and `from` is not read.
ASI_DEVICE void copy_async16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
ASI_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Newest>
ASI_DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
}

#else

inline void copy_async16(void* to, const void* from, bool valid) {
    auto* words = static_cast<std::uint64_t*>(to);
    words[0] = words[1] = ~std::uint64_t{0};  // NaN until it has been waited for
    simt::copy_start(to, from, valid ? 16 : 0, valid ? 0 : 16);
}
inline void copy_async_commit() { simt::copy_commit(); }
template <int Newest>
inline void copy_async_wait() {
    for (simt::Copy c{}; simt::copy_take(Newest, c);) c.bytes ? copy16(c.to, c.from) : zero16(c.to);
}

#endif

// --- tensor cores (PTX ISA: mma.m16n8k16 with bf16 inputs and float accumulation, ldmatrix)
// ------------------------

#if defined(__CUDACC__)

template <bool Transposed>
ASI_DEVICE void load_matrices(std::uint32_t (&r)[4], const bf16* row) {
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
}
ASI_DEVICE void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

// Lane i names row i % 8 of matrix i / 8, eight elements; each lane reads the row it names, so that a
// sanitizer sees who reads what. Lane l receives of each matrix row l / 4, elements 2 (l % 4) and the next
// (transposed: rows and columns exchanged).
template <bool Transposed>
inline void load_matrices(std::uint32_t (&r)[4], const bf16* row,
                          const simt::Site& site = simt::Site::current()) {
    struct Row {
        std::uint16_t x[8];
    } in;
    struct Out {
        std::uint32_t r[4];
    } out;
    const auto* aligned =
        reinterpret_cast<const std::uint64_t*>(row);  // the sanitizer checks 8 of the 16 bytes
    const std::uint64_t words[2] = {aligned[0], aligned[1]};
    std::memcpy(&in, words, 16);
    const auto op = [](const void* const* ins, void* const* outs) ASI_UNSEEN {
        for (int lane = 0; lane < 32; ++lane)
            for (int m = 0; m < 4; ++m) {
                std::uint32_t pair = 0;
                for (int half = 0; half < 2; ++half) {
                    int i = lane / 4, j = 2 * (lane % 4) + half;
                    if (Transposed) std::swap(i, j);
                    pair |= static_cast<std::uint32_t>(static_cast<const Row*>(ins[8 * m + i])->x[j])
                            << (16 * half);
                }
                static_cast<Out*>(outs[lane])->r[m] = pair;
            }
    };
    simt::collective(kAllLanes, op, &in, &out, site);
    std::copy_n(out.r, 4, r);
}
inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                const simt::Site& site = simt::Site::current()) {
    struct In {
        float c[4];
        std::uint32_t a[4], b[2];
    } in{{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    struct Out {
        float c[4];
    } out;
    const auto op = [](const void* const* ins, void* const* outs) ASI_UNSEEN {
        float am[16][16], bm[8][16], cm[16][8];  // B transposed
        const auto half = [](std::uint32_t pair, int which) {
            return bits_float(which ? pair & 0xFFFF0000U : pair << 16);
        };
        for (int lane = 0; lane < 32; ++lane) {
            const In& x = *static_cast<const In*>(ins[lane]);
            const int g = lane / 4, t = 2 * (lane % 4);
            for (int h = 0; h < 2; ++h) {
                for (int i = 0; i < 4; ++i) am[g + 8 * (i % 2)][t + h + 8 * (i / 2)] = half(x.a[i], h);
                for (int i = 0; i < 2; ++i) bm[g][t + h + 8 * i] = half(x.b[i], h);
                for (int i = 0; i < 2; ++i) cm[g + 8 * i][t + h] = x.c[2 * i + h];
            }
        }
        for (int i = 0; i < 16; ++i)
            for (int j = 0; j < 8; ++j) {
                float sum = 0;
                for (int k = 0; k < 16; ++k) sum += am[i][k] * bm[j][k];
                cm[i][j] += sum;
            }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i)
                static_cast<Out*>(outs[lane])->c[i] = cm[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    };
    simt::collective(kAllLanes, op, &in, &out, site);
    std::copy_n(out.c, 4, c);
}

#endif

}  // namespace asi::linear_attention::cuda
