// Every instruction set this CPU has, against plain float64 loops over the recurrence.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "linear_attention/linear_attention.h"
#include "reference.h"

namespace la = asi::linear_attention;
using reference::Case;
using reference::Problem;
using reference::random;

namespace {

int failures = 0;

struct BFloat16 {
    std::uint16_t bits = 0;
    BFloat16() = default;
    explicit BFloat16(double x) {  // of what it can hold, or NaN
        const float y = static_cast<float>(x);
        std::uint32_t all;
        std::memcpy(&all, &y, sizeof(all));
        bits = static_cast<std::uint16_t>(all >> 16);
    }
    explicit operator double() const {
        const std::uint32_t all = static_cast<std::uint32_t>(bits) << 16;
        float y;
        std::memcpy(&y, &all, sizeof(y));
        return y;
    }
};

template <class T>
struct Tensor {
    std::vector<T> data;
    la::View view;
    Tensor(const std::vector<double>& from, const la::Shape& s, std::int64_t d, bool gaps) {
        const std::int64_t last = gaps ? 2 : 1, row = d * last + (gaps ? 3 : 0);
        data.assign(static_cast<std::size_t>(s.batch * s.heads * s.length * row + 1), T(NAN));
        view = {data.data(), {s.heads * s.length * row, s.length * row, row, last}};
        if (from.empty()) return;
        for (std::int64_t t = 0; t < s.batch * s.heads * s.length; ++t)
            for (std::int64_t e = 0; e < d; ++e) data[t * row + e * last] = static_cast<T>(from[t * d + e]);
    }
};

template <class T>
void compare(const char* isa, const char* what, const Case& c, const T* got, const std::vector<double>& want,
             double relative = sizeof(T) == 8 ? 1e-12 : 3e-5) {
    double scale = 1, worst = 0;
    for (double x : want) scale = std::max(scale, std::fabs(x));
    const double tolerance = relative * scale;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const double error = std::fabs(static_cast<double>(got[i]) - want[i]);
        if (!(error <= worst)) worst = error;
        if (std::isnan(error)) break;
    }
    if (worst <= tolerance) return;
    if (++failures > 20) return;  // the count says the rest
    const la::Shape& s = c.shape;
    std::printf(
        "%s %s: error %g, allowed %g, at B%d H%d N%d d_k%d d_phi%d d_v%d causal%d mapped%d head%d state%d\n",
        isa, what, worst, tolerance, int(s.batch), int(s.heads), int(s.length), int(s.d_k), int(s.d_phi),
        int(s.d_v), c.causal, c.mapped, c.per_head, c.state);
}

template <class T>
std::vector<T> cast(const std::vector<double>& x) {
    std::vector<T> y(x.begin(), x.end());
    y.push_back(T(0));  // never empty: data() is not null
    return y;
}

template <class Params>
void run_all(std::int64_t count, std::size_t size, const Params& params,
             void (*work)(const Params&, std::int64_t, std::byte*)) {
    std::vector<std::byte> memory(size + 64);
    auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    std::byte* const aligned = memory.data() + (64 - address % 64) % 64;
    for (std::int64_t i = 0; i < count; ++i) work(params, i, aligned);
}

template <class T>
void check(const la::Kernels& kernels, Problem& p, bool gaps) {
    const Case& c = p.c;
    const la::Shape& s = c.shape;
    const double eps = 1e-6;
    Tensor<T> q(p.q, s, s.d_k, gaps), k(p.k, s, s.d_k, gaps), v(p.v, s, s.d_v, gaps), g(p.g, s, s.d_v, gaps);
    Tensor<T> out({}, s, s.d_v, false), dq({}, s, s.d_k, false), dk({}, s, s.d_k, false),
        dv({}, s, s.d_v, false);
    auto w = cast<T>(p.w), b = cast<T>(p.b), s0 = cast<T>(p.s0), z0 = cast<T>(p.z0), gs = cast<T>(p.gs),
         gz = cast<T>(p.gz);
    std::vector<T> s1(s0.size()), z1(z0.size()), ds0(s0.size()), dz0(z0.size());
    std::vector<T> dw(s.batch * s.heads * s.d_phi * s.d_k + 1), db(s.batch * s.heads * s.d_phi + 1);
    la::Features f;
    if (c.mapped) f = {w.data(), b.data(), c.per_head ? s.d_phi * s.d_k : 0, c.per_head ? s.d_phi : 0};

    la::ForwardParams forward;
    forward.dtype = sizeof(T) == 8 ? la::DType::f64 : la::DType::f32;
    forward.causal = c.causal, forward.eps = eps, forward.shape = s;
    forward.q = q.view, forward.k = k.view, forward.v = v.view, forward.out = out.view, forward.phi = f;
    if (c.state) forward.initial = {s0.data(), z0.data()};
    forward.final = {s1.data(), z1.data()};
    run_all(s.batch * s.heads, kernels.forward_scratch(forward), forward, kernels.forward);
    compare(kernels.name, "out", c, out.data.data(), p.out);
    compare(kernels.name, "S", c, s1.data(), p.s1);
    compare(kernels.name, "z", c, z1.data(), p.z1);

    la::BackwardParams backward;
    backward.dtype = forward.dtype, backward.causal = c.causal, backward.eps = eps, backward.shape = s;
    backward.q = q.view, backward.k = k.view, backward.v = v.view, backward.out = out.view;
    backward.grad_out = g.view, backward.grad_q = dq.view, backward.grad_k = dk.view,
    backward.grad_v = dv.view;
    backward.phi = f, backward.initial = forward.initial;
    backward.grad_final = {gs.data(), gz.data()}, backward.grad_initial = {ds0.data(), dz0.data()};
    backward.grad_weight = dw.data(), backward.grad_bias = db.data();
    run_all(s.batch * s.heads, kernels.backward_scratch(backward), backward, kernels.backward);
    compare(kernels.name, "grad q", c, dq.data.data(), p.dq);
    compare(kernels.name, "grad k", c, dk.data.data(), p.dk);
    compare(kernels.name, "grad v", c, dv.data.data(), p.dv);
    compare(kernels.name, "grad S", c, ds0.data(), p.ds0);
    compare(kernels.name, "grad z", c, dz0.data(), p.dz0);
    if (c.mapped) {
        compare(kernels.name, "grad W", c, dw.data(), p.dw);
        compare(kernels.name, "grad b", c, db.data(), p.db);
    }

    if (s.length != 1 || !c.causal) return;
    la::StepParams step;
    step.dtype = forward.dtype, step.eps = eps, step.shape = s;
    step.q = q.view, step.k = k.view, step.v = v.view, step.out = out.view, step.phi = f;
    step.initial = {s0.data(), z0.data()}, step.final = {s1.data(), z1.data()};
    run_all(s.batch * s.heads, kernels.step_scratch(step), step, kernels.step);
    compare(kernels.name, "step out", c, out.data.data(), p.out);
    compare(kernels.name, "step S", c, s1.data(), p.s1);
    compare(kernels.name, "step z", c, z1.data(), p.z1);
}

// Forward only: the other passes of bfloat16 are the float32 ones. States are float32; where bfloat16 is what
// is multiplied, they have its error after a feature map.
void check_bfloat16(const la::Kernels& kernels, Problem& p, bool gaps, bool with_bias) {
    const Case& c = p.c;
    const la::Shape& s = c.shape;
    Tensor<BFloat16> q(p.q, s, s.d_k, gaps), k(p.k, s, s.d_k, gaps), v(p.v, s, s.d_v, gaps),
        out({}, s, s.d_v, false);
    auto w = cast<float>(p.w), b = cast<float>(p.b), s0 = cast<float>(p.s0), z0 = cast<float>(p.z0);
    std::vector<float> s1(s0.size(), NAN), z1(z0.size(), NAN);
    la::ForwardParams forward;
    forward.dtype = la::DType::bf16, forward.causal = c.causal, forward.eps = 1e-6, forward.shape = s;
    forward.q = q.view, forward.k = k.view, forward.v = v.view, forward.out = out.view;
    if (c.mapped)
        forward.phi = {w.data(), with_bias ? b.data() : nullptr, c.per_head ? s.d_phi * s.d_k : 0,
                       c.per_head ? s.d_phi : 0};
    if (c.state) forward.initial = {s0.data(), z0.data()};
    forward.final = {s1.data(), z1.data()};
    run_all(s.batch * s.heads, kernels.forward_scratch(forward), forward, kernels.forward);
    const bool rounded = c.mapped && std::strcmp(kernels.name, "avx512_bf16") == 0;
    compare(kernels.name, "bfloat16 out", c, out.data.data(), p.out, 1e-2);
    compare(kernels.name, "bfloat16 S", c, s1.data(), p.s1, rounded ? 2e-2 : 3e-5);
    compare(kernels.name, "bfloat16 z", c, z1.data(), p.z1, rounded ? 5e-3 : 3e-5);
}

// 0 times NaN is NaN: padding must not bring one sequence's NaN into the next one, which has the same
// scratch.
void check_nan_stays(const la::Kernels& kernels) {
    const la::Shape s{1, 2, 40, 5, 7, 3};
    std::mt19937 rng(2);
    Problem p{};
    p.c = {s, true, true, false, false};
    p.q = random(2 * 40 * 5, rng, -1, 1), p.k = random(2 * 40 * 5, rng, -1, 1);
    p.v = random(2 * 40 * 3, rng, -1, 1), p.w = random(7 * 5, rng, -1, 1);
    std::fill(p.v.begin(), p.v.begin() + 40 * 3, NAN);
    std::fill(p.k.begin(), p.k.begin() + 40 * 5, NAN);
    for (const bool mapped : {false, true}) {
        la::Shape here = s;
        if (!mapped) here.d_phi = s.d_k;
        Tensor<BFloat16> q(p.q, s, 5, false), k(p.k, s, 5, false), v(p.v, s, 3, false), out({}, s, 3, false);
        auto w = cast<float>(p.w);
        la::ForwardParams forward;
        forward.dtype = la::DType::bf16, forward.eps = 1e-6, forward.shape = here;
        forward.q = q.view, forward.k = k.view, forward.v = v.view, forward.out = out.view;
        if (mapped) forward.phi = {w.data(), nullptr, 0, 0};
        run_all(2, kernels.forward_scratch(forward), forward, kernels.forward);
        bool first = true, second = false;
        for (int i = 0; i < 40 * 3; ++i) {
            first &= std::isnan(static_cast<double>(out.data[i]));
            second |= std::isnan(static_cast<double>(out.data[40 * 3 + i]));
        }
        if (first && !second) continue;
        ++failures;
        std::printf("%s: NaN of one sequence, mapped%d: in its own output %d, in the next one's %d\n",
                    kernels.name, mapped, first, second);
    }
}

int bfloat16_cases(const std::vector<const la::Kernels*>& kernels) {
    std::mt19937 rng(3);
    int cases = 0;
    const std::int64_t widths[][3] = {{1, 1, 1},    {3, 5, 2},    {17, 33, 31},
                                      {32, 32, 32}, {64, 64, 64}, {64, 72, 130}};
    for (const std::int64_t n : {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 107})
        for (const auto& d : widths)
            for (int bits = 0; bits < 16; ++bits) {
                Case c{{2, 2, n, d[0], d[1], d[2]},
                       bool(bits & 1),
                       bool(bits & 2),
                       bool(bits & 4),
                       bool(bits & 8)};
                if (!c.mapped) c.shape.d_phi = c.shape.d_k;
                if (!c.mapped && c.per_head) continue;
                Problem p{};
                p.c = c;
                const la::Shape& s = c.shape;
                const std::int64_t bh = s.batch * s.heads, tokens = bh * n, heads = c.per_head ? s.heads : 1;
                const bool with_bias = n % 3 != 0;
                p.q = random(tokens * s.d_k, rng, c.mapped ? -1 : 0.05, 1);
                p.k = random(tokens * s.d_k, rng, c.mapped ? -1 : 0.05, 1);
                p.v = random(tokens * s.d_v, rng, -1, 1), p.g.assign(p.v.size(), 0);
                for (auto* x : {&p.q, &p.k, &p.v})
                    for (double& value : *x) value = static_cast<double>(BFloat16(value));
                p.w = random(heads * s.d_phi * s.d_k, rng, -0.5, 0.5), p.b.assign(heads * s.d_phi, 0);
                if (with_bias) p.b = random(heads * s.d_phi, rng, -1, 1);
                p.s0 = random(bh * s.d_phi * s.d_v, rng, -1, 1), p.z0 = random(bh * s.d_phi, rng, 0.1, 1);
                if (!c.state) p.s0.assign(p.s0.size(), 0), p.z0.assign(p.z0.size(), 0);
                p.gs.assign(p.s0.size(), 0), p.gz.assign(p.z0.size(), 0);
                reference::solve(p, 1e-6);
                for (const la::Kernels* use : kernels) check_bfloat16(*use, p, bits % 3 == 0, with_bias);
                ++cases;
            }
    for (const la::Kernels* use : kernels) check_nan_stays(*use);
    return cases;
}

}  // namespace

int main(int argc, char**) {  // with an argument only what is bfloat16
    std::vector<const la::Kernels*> kernels = {&la::scalar_kernels()};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        kernels.push_back(&la::avx2_kernels());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        kernels.push_back(&la::avx512_kernels());
    if (__builtin_cpu_supports("avx512bf16")) kernels.push_back(&la::avx512_bf16_kernels());
#endif
    std::mt19937 rng(1);
    int cases = bfloat16_cases(kernels);
    if (argc > 1) return failures ? 1 : 0;
    const std::int64_t lengths[] = {0, 1, 7, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 200};
    const std::int64_t widths[][3] = {{1, 1, 1},    {3, 5, 2},    {16, 16, 16},
                                      {32, 32, 32}, {17, 40, 33}, {64, 64, 64}};
    for (const std::int64_t n : lengths)
        for (const auto& d : widths)
            for (int bits = 0; bits < 16; ++bits) {
                Case c{{2, 2, n, d[0], d[1], d[2]},
                       bool(bits & 1),
                       bool(bits & 2),
                       bool(bits & 4),
                       bool(bits & 8)};
                if (!c.mapped) c.shape.d_phi = c.shape.d_k;
                if (!c.mapped && c.per_head) continue;
                if (n > 64 && d[0] == 64 && bits % 4) continue;
                Problem p{c, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
                const la::Shape& s = c.shape;
                const std::int64_t bh = s.batch * s.heads, tokens = bh * n, heads = c.per_head ? s.heads : 1;
                const double low = c.mapped ? -1 : 0.05;
                p.q = random(tokens * s.d_k, rng, low, 1), p.k = random(tokens * s.d_k, rng, low, 1);
                p.v = random(tokens * s.d_v, rng, -1, 1), p.g = random(tokens * s.d_v, rng, -1, 1);
                p.w = random(heads * s.d_phi * s.d_k, rng, -0.5, 0.5),
                p.b = random(heads * s.d_phi, rng, -1, 1);
                p.s0 = random(bh * s.d_phi * s.d_v, rng, -1, 1), p.z0 = random(bh * s.d_phi, rng, 0.1, 1);
                if (!c.state) p.s0.assign(p.s0.size(), 0), p.z0.assign(p.z0.size(), 0);
                p.gs = random(bh * s.d_phi * s.d_v, rng, -1, 1), p.gz = random(bh * s.d_phi, rng, -1, 1);
                reference::solve(p, 1e-6);
                for (const la::Kernels* use : kernels) {
                    check<float>(*use, p, n % 2);
                    check<double>(*use, p, !(n % 2));
                }
                ++cases;
            }
    std::printf("%d cases, %d instruction sets, %d failures; in use: %s\n", cases, int(kernels.size()),
                failures, la::isa());
    return failures ? 1 : 0;
}
