// Every instance of the CUDA kernels, executed on the SIMT layer, against the float64 definition. Each tensor
// is a heap buffer of exactly its size, gaps between rows are NaN, and the order of threads changes from case
// to case.
//
//   test_kernels [quick|races]  `quick`: fewer lengths; `races`: one length, one sequence of two segments (a
//   fiber is
//                               dear under ThreadSanitizer)
//   ASI_EVOLVE_SIMT_ALL=1    every combination of options at every length; takes long
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "../reference.h"
#include "linear_attention/cuda/device.cuh"
#include "linear_attention/cuda/runner.h"
#include "simt/simt.h"

namespace la = asi::linear_attention;
namespace cuda = asi::linear_attention::cuda;
using reference::Case;
using reference::Problem;

#if SIMT_TSAN
extern "C" const char* __tsan_default_options() { return "halt_on_error=1:history_size=0"; }
#endif

namespace {

int failures = 0;
constexpr double kEps = 1e-6;

// Memory of exactly the size asked for, NaN at first.
template <class T>
struct Buffer {
    std::size_t size;
    std::unique_ptr<T, void (*)(void*)> memory{nullptr, std::free};
    explicit Buffer(std::size_t n) : size(n) {
        void* got = nullptr;
        if (posix_memalign(&got, 16, n * sizeof(T)) != 0) throw std::bad_alloc();
        std::memset(got, 0xFF, n * sizeof(T));
        memory.reset(static_cast<T*>(got));
    }
    T* data() { return memory.get(); }
    T& operator[](std::size_t i) { return memory.get()[i]; }
};

Buffer<float> floats(const std::vector<double>& x) {
    Buffer<float> buffer(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) buffer[i] = static_cast<float>(x[i]);
    return buffer;
}

enum class Order { contiguous, heads_inside, gaps };  // (B, H, N, d), (B, N, H, d), padded rows

template <class E>
struct Tensor {
    std::int64_t stride[3];
    const la::Shape& s;
    Buffer<E> buffer;
    Tensor(const la::Shape& shape, std::int64_t d, Order order) : s(shape), buffer(layout(d, order)) {}
    std::size_t layout(std::int64_t d, Order order) {
        const std::int64_t row = order == Order::gaps ? d + 16 : d;
        if (order == Order::heads_inside)
            stride[0] = s.length * s.heads * d, stride[1] = d, stride[2] = s.heads * d;
        else
            stride[0] = s.heads * s.length * row, stride[1] = s.length * row, stride[2] = row;
        if (s.length == 0) return 0;
        return static_cast<std::size_t>((s.batch - 1) * stride[0] + (s.heads - 1) * stride[1] +
                                        (s.length - 1) * stride[2] + d);
    }
    std::size_t at(std::int64_t token, std::int64_t e) const {
        const std::int64_t n = token % s.length, h = token / s.length % s.heads,
                           b = token / s.length / s.heads;
        return static_cast<std::size_t>(b * stride[0] + h * stride[1] + n * stride[2] + e);
    }
    la::View view() { return {buffer.data(), {stride[0], stride[1], stride[2], 1}}; }
    void fill(const std::vector<double>& from, std::int64_t d) {
        for (std::size_t i = 0; i < from.size(); ++i)
            cuda::narrow(static_cast<float>(from[i]),
                         buffer[at(static_cast<std::int64_t>(i) / d, static_cast<std::int64_t>(i) % d)]);
    }
    std::vector<double> values(std::int64_t d) {
        std::vector<double> out(static_cast<std::size_t>(s.batch * s.heads * s.length * d));
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] =
                cuda::widen(buffer[at(static_cast<std::int64_t>(i) / d, static_cast<std::int64_t>(i) % d)]);
        return out;
    }
};

template <class E>
void round_to(std::vector<double>& x) {
    for (double& value : x) {
        E e;
        cuda::narrow(static_cast<float>(value), e);
        value = cuda::widen(e);
    }
}

struct Settings {
    Case c;
    int segments = 1;
    bool bias = true, ends = true;  // ends: final state wanted and its gradient given
    Order order = Order::contiguous;
    bool tensor = false;
    std::string name;
};

double worst_of_all[2] = {0, 0};

template <class T>
void compare(const Settings& c, const char* what, T&& got, const std::vector<double>& want) {
    // Products of rounded phi, scores and states against exact ones: bfloat16 has 8 bits.
    const double tolerance = c.tensor ? 2e-2 : 2e-5;
    double scale = 1, worst = 0;
    for (const double x : want) scale = std::max(scale, std::fabs(x));
    for (std::size_t i = 0; i < want.size(); ++i) {
        const double error = std::fabs(static_cast<double>(got[i]) - want[i]) / scale;
        if (!(error <= worst)) worst = error;
        if (std::isnan(error)) break;
    }
    worst_of_all[c.tensor] = std::max(worst_of_all[c.tensor], worst);
    if (worst <= tolerance) return;
    if (++failures > 20) return;  // the count says the rest
    std::printf("%s %s: error %g, allowed %g\n", c.name.c_str(), what, worst, tolerance);
}

template <class E>
void check(const cuda::Runner& runner, const Settings& settings, cuda::ElementType type, std::mt19937& rng) {
    const Case& c = settings.c;
    const la::Shape& s = c.shape;
    const std::int64_t d = s.d_phi, sequences = s.batch * s.heads, tokens = sequences * s.length;
    const std::int64_t heads = c.per_head ? s.heads : 1;
    Problem p{c, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    const double low = c.mapped ? -1 : 0.05;
    p.q = reference::random(tokens * d, rng, low, 1), p.k = reference::random(tokens * d, rng, low, 1);
    p.v = reference::random(tokens * d, rng, -1, 1), p.g = reference::random(tokens * d, rng, -1, 1);
    for (auto* x : {&p.q, &p.k, &p.v, &p.g}) round_to<E>(*x);
    const double w = 2 / std::sqrt(static_cast<double>(d));
    p.w = reference::random(heads * d * d, rng, -w, w), p.b = reference::random(heads * d, rng, -1, 1);
    if (!settings.bias) p.b.assign(p.b.size(), 0);
    p.s0 = reference::random(sequences * d * d, rng, -1, 1),
    p.z0 = reference::random(sequences * d, rng, 0.1, 1);
    if (!c.state) p.s0.assign(p.s0.size(), 0), p.z0.assign(p.z0.size(), 0);
    p.gs = reference::random(sequences * d * d, rng, -0.1, 0.1),
    p.gz = reference::random(sequences * d, rng, -0.1, 0.1);
    if (!settings.ends) p.gs.assign(p.gs.size(), 0), p.gz.assign(p.gz.size(), 0);
    reference::solve(p, kEps);

    Tensor<E> q(s, d, settings.order), k(s, d, settings.order), v(s, d, settings.order),
        g(s, d, settings.order);
    Tensor<E> out(s, d, Order::contiguous), dq(s, d, Order::contiguous), dk(s, d, Order::contiguous),
        dv(s, d, Order::contiguous);
    q.fill(p.q, d), k.fill(p.k, d), v.fill(p.v, d), g.fill(p.g, d);
    auto weight = floats(p.w), bias = floats(p.b), s0 = floats(p.s0), z0 = floats(p.z0), gs = floats(p.gs),
         gz = floats(p.gz);
    const auto square = static_cast<std::size_t>(sequences * d * d),
               line = static_cast<std::size_t>(sequences * d);
    Buffer<float> s1(square), z1(line), ds0(square), dz0(line), dw(square), db(line);

    cuda::Launch launch;
    launch.type = type, launch.segments = settings.segments, launch.elementwise_blocks = 2;
    const auto workspace = [&](bool backward) {
        return Buffer<float>(
            static_cast<std::size_t>(runner.workspace_floats(s, settings.segments, c.mapped, backward)));
    };
    la::ForwardParams f;
    f.causal = c.causal, f.eps = kEps, f.shape = s;
    f.q = q.view(), f.k = k.view(), f.v = v.view(), f.out = out.view();
    if (c.mapped)
        f.phi = {weight.data(), settings.bias ? bias.data() : nullptr, c.per_head ? d * d : 0,
                 c.per_head ? d : 0};
    if (c.state) f.initial = {s0.data(), z0.data()};
    if (settings.ends) f.final = {s1.data(), z1.data()};
    auto space = workspace(false);
    launch.workspace = space.data();
    runner.forward(f, launch);
    compare(settings, "out", out.values(d), p.out);
    if (settings.ends) compare(settings, "S", s1, p.s1), compare(settings, "z", z1, p.z1);

    la::BackwardParams b;
    b.causal = c.causal, b.eps = kEps, b.shape = s;
    b.q = f.q, b.k = f.k, b.v = f.v, b.out = f.out, b.grad_out = g.view();
    b.grad_q = dq.view(), b.grad_k = dk.view(), b.grad_v = dv.view();
    b.phi = f.phi, b.initial = f.initial;
    if (settings.ends) b.grad_final = {gs.data(), gz.data()};
    if (c.state) b.grad_initial = {ds0.data(), dz0.data()};
    if (c.mapped) b.grad_weight = dw.data(), b.grad_bias = settings.bias ? db.data() : nullptr;
    auto more_space = workspace(true);
    launch.workspace = more_space.data();
    runner.backward(b, launch);
    compare(settings, "grad q", dq.values(d), p.dq);
    compare(settings, "grad k", dk.values(d), p.dk);
    compare(settings, "grad v", dv.values(d), p.dv);
    if (c.state) compare(settings, "grad S", ds0, p.ds0), compare(settings, "grad z", dz0, p.dz0);
    if (c.mapped) compare(settings, "grad W", dw, p.dw);
    if (c.mapped && settings.bias) compare(settings, "grad b", db, p.db);
}

// The same bits for every order of threads and blocks.
void check_determinism(const cuda::Runner& runner, std::mt19937& rng) {
    const std::int64_t d = runner.instance.d, n = 2 * runner.instance.chunk + 1;
    const la::Shape s{1, 1, n, d, d, d};
    Tensor<float> q(s, d, Order::contiguous), k(s, d, Order::contiguous), v(s, d, Order::contiguous);
    for (auto* x : {&q, &k, &v}) x->fill(reference::random(n * d, rng, 0.05, 1), d);
    std::vector<double> first;
    for (const auto order : {simt::Order::forward, simt::Order::reverse, simt::Order::seeded}) {
        simt::options.order = order;
        Tensor<float> out(s, d, Order::contiguous);
        la::ForwardParams f;
        f.eps = kEps, f.shape = s, f.q = q.view(), f.k = k.view(), f.v = v.view(), f.out = out.view();
        cuda::Launch launch;
        launch.segments = 2;
        Buffer<float> space(static_cast<std::size_t>(runner.workspace_floats(s, 2, false, false)));
        launch.workspace = space.data();
        runner.forward(f, launch);
        const auto values = out.values(d);
        if (first.empty()) first = values;
        if (first != values) {
            ++failures;
            std::printf("%s d%d: the order of threads changes the result\n", runner.instance.variant, int(d));
        }
    }
}

template <class E>
void check_step(cuda::ElementType type, bool mapped, bool in_place, std::int64_t d_k, std::int64_t d_phi,
                std::int64_t d_v, std::mt19937& rng) {
    Settings settings;
    settings.c = {{2, 2, 1, d_k, mapped ? d_phi : d_k, d_v}, true, mapped, true, true};
    settings.name =
        "step d_k" + std::to_string(d_k) + " d_v" + std::to_string(d_v) + " mapped" + std::to_string(mapped);
    settings.tensor = type != cuda::ElementType::f32;
    const la::Shape& s = settings.c.shape;
    Problem p{settings.c, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    p.q = reference::random(4 * d_k, rng, 0.05, 1), p.k = reference::random(4 * d_k, rng, 0.05, 1);
    p.v = reference::random(4 * d_v, rng, -1, 1), p.g.assign(p.v.size(), 0);
    for (auto* x : {&p.q, &p.k, &p.v}) round_to<E>(*x);
    p.w = reference::random(2 * s.d_phi * d_k, rng, -1, 1), p.b = reference::random(2 * s.d_phi, rng, -1, 1);
    p.s0 = reference::random(4 * s.d_phi * d_v, rng, -1, 1),
    p.z0 = reference::random(4 * s.d_phi, rng, 0.1, 1);
    p.gs.assign(p.s0.size(), 0), p.gz.assign(p.z0.size(), 0);
    reference::solve(p, kEps);
    Tensor<E> q(s, d_k, Order::contiguous), k(s, d_k, Order::contiguous), v(s, d_v, Order::contiguous),
        out(s, d_v, Order::contiguous);
    q.fill(p.q, d_k), k.fill(p.k, d_k), v.fill(p.v, d_v);
    auto weight = floats(p.w), bias = floats(p.b), s0 = floats(p.s0), z0 = floats(p.z0);
    Buffer<float> s1(p.s0.size()), z1(p.z0.size());
    la::StepParams step;
    step.eps = kEps, step.shape = s;
    step.q = q.view(), step.k = k.view(), step.v = v.view(), step.out = out.view();
    if (mapped) step.phi = {weight.data(), bias.data(), s.d_phi * d_k, s.d_phi};
    step.initial = {s0.data(), z0.data()};
    step.final = in_place ? la::State{s0.data(), z0.data()} : la::State{s1.data(), z1.data()};
    cuda::Launch launch;
    launch.type = type;
    cuda::run_step_as(step, launch);
    compare(settings, "out", out.values(d_v), p.out);
    settings.tensor = false;
    compare(settings, "S", in_place ? s0 : s1, p.s1);
    compare(settings, "z", in_place ? z0 : z1, p.z1);
}

void run(const cuda::Runner& runner, bool quick, bool races, bool all, int& cases) {
    const cuda::Instance& instance = runner.instance;
    const std::int64_t c = instance.chunk, d = instance.d;
    std::mt19937 rng(static_cast<unsigned>(d));
    std::vector<std::int64_t> lengths = {0, 1, c - 1, c, c + 1, 3 * c + 5};
    if (quick) lengths = {c - 1, 2 * c + 3};
    if (races) lengths = {2 * c + 3};
    int turn = 0;
    for (const std::int64_t n : lengths)
        for (int bits = 0; bits < (all ? 128 : 2); ++bits) {
            ++turn;
            // Without `all` the options other than causal take turns, so that each meets each.
            const auto option = [&](int number, int period) {
                return all ? bits >> number & 1 : turn / period % 2;
            };
            Settings settings;
            settings.c.causal = bits & 1;
            settings.c.mapped = all ? bits & 2 : turn % 4 != 3;
            settings.c.per_head = option(2, 2);
            settings.c.state = all ? bits & 8 : turn / 2 % 3 != 2;
            settings.bias = all ? bits & 16 : turn % 5 != 4;
            settings.ends = all ? bits & 32 : turn % 3 != 0;
            settings.segments = all ? 1 + (bits >> 6 & 1) : 1 + turn % 3;
            settings.order = static_cast<Order>(turn % 3);
            settings.c.shape = {turn / 2 % 2 ? 2 : 1, turn / 2 % 2 ? 1 : 2, n, d, d, d};
            if (races)
                settings.segments = 2, settings.c.mapped = true,
                settings.c.shape.batch = settings.c.shape.heads = 1;
            if (!quick && turn % 5 == 0) settings.c.shape.batch = settings.c.shape.heads = 2;
            settings.tensor = std::string(instance.variant) == "tensor";
            simt::options.order = static_cast<simt::Order>(turn % 3),
            simt::options.seed = static_cast<unsigned>(turn);
            for (const cuda::ElementType type : instance.types) {
                if (quick && type == cuda::ElementType::f16 && bits == (d > 32 && races ? bits : 0)) continue;
                settings.name = std::string(instance.variant) + " type" + std::to_string(int(type)) + " d" +
                                std::to_string(d) + " N" + std::to_string(n) + " segments" +
                                std::to_string(settings.segments) + " causal" +
                                std::to_string(settings.c.causal) + " mapped" +
                                std::to_string(settings.c.mapped) + " state" +
                                std::to_string(settings.c.state);
                try {
                    if (type == cuda::ElementType::f32) check<float>(runner, settings, type, rng);
                    if (type == cuda::ElementType::bf16) check<cuda::bf16>(runner, settings, type, rng);
                    if (type == cuda::ElementType::f16) check<cuda::f16>(runner, settings, type, rng);
                } catch (const std::runtime_error& error) {
                    if (++failures <= 20) std::printf("%s: %s\n", settings.name.c_str(), error.what());
                }
                ++cases;
            }
        }
    if (!quick && instance.types[0] == cuda::ElementType::f32) check_determinism(runner, rng);
}

}  // namespace

int main(int count, char** arguments) {
    const bool races = count > 1 && std::strcmp(arguments[1], "races") == 0;
    const bool quick = races || (count > 1 && std::strcmp(arguments[1], "quick") == 0);
    const char* const all = std::getenv("ASI_EVOLVE_SIMT_ALL");
    int cases = 0;
    std::vector<cuda::Runner> runners;
    for (const auto& some : {cuda::portable_runners(), cuda::fma_runners(), cuda::tensor_runners()})
        runners.insert(runners.end(), some.begin(), some.end());
    for (const cuda::Runner& runner : runners) run(runner, quick, races, all && *all && *all != '0', cases);
    std::mt19937 rng(7);
    for (int bits = 0; bits < 4; ++bits) {
        simt::options.order = static_cast<simt::Order>(bits % 3);
        try {
            check_step<float>(cuda::ElementType::f32, bits & 1, bits & 2, 5, 3, 150, rng);
            check_step<float>(cuda::ElementType::f32, bits & 1, bits & 2, 64, 64, 64, rng);
            check_step<cuda::bf16>(cuda::ElementType::bf16, bits & 1, bits & 2, 32, 32, 32, rng);
            check_step<cuda::f16>(cuda::ElementType::f16, bits & 1, bits & 2, 33, 40, 7, rng);
        } catch (const std::runtime_error& error) {
            ++failures;
            std::printf("step: %s\n", error.what());
        }
    }
    std::printf(
        "%d cases of %d instances, %d failures; largest relative error: float32 %.1e, tensor cores %.1e\n",
        cases, static_cast<int>(runners.size()), failures, worst_of_all[0], worst_of_all[1]);
    return failures ? 1 : 0;
}
