#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "linear_attention/linear_attention.h"

namespace asi::linear_attention {
namespace {

bool runs_here(const char* name) {
    if (std::strcmp(name, "scalar") == 0) return true;
#if ASI_EVOLVE_X86
    if (std::strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (std::strcmp(name, "avx512_bf16") == 0)
        return __builtin_cpu_supports("avx512bf16") && runs_here("avx512");
    if (std::strcmp(name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#endif
    return false;
}

std::vector<const Kernels*> available() {  // best first
    std::vector<const Kernels*> found;
#if ASI_EVOLVE_X86
    if (runs_here("avx512_bf16")) found.push_back(&avx512_bf16_kernels());
    if (runs_here("avx512")) found.push_back(&avx512_kernels());
    if (runs_here("avx2")) found.push_back(&avx2_kernels());
#endif
    found.push_back(&scalar_kernels());
    return found;
}

const Kernels& choose() {
    const auto found = available();
    const char* wanted = std::getenv("ASI_EVOLVE_ISA");
    if (!wanted || !*wanted) return *found.front();
    std::string allowed;
    for (const Kernels* kernels : found) {
        if (std::strcmp(kernels->name, wanted) == 0) return *kernels;
        allowed += std::string(allowed.empty() ? "" : ", ") + kernels->name;
    }
    throw std::runtime_error("ASI_EVOLVE_ISA: '" + std::string(wanted) + "' is not one of " + allowed +
                             " (what this CPU and this build have)");
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();  // a throw leaves it unset: the next call tries again
    return chosen;
}

struct Scratch {
    explicit Scratch(std::size_t size)
        : bytes(static_cast<std::byte*>(
              ::operator new(std::max<std::size_t>(size, 64), std::align_val_t{64}))) {
        std::memset(bytes, 0,
                    std::max<std::size_t>(size, 64));  // padding is computed with, though never used
    }
    ~Scratch() { ::operator delete(bytes, std::align_val_t{64}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::byte* const bytes;
};

// work(index, scratch) for every index below `count`. Which thread takes which index changes nothing in the
// result.
template <class Work>
void parallel(std::int64_t count, int threads, double operations, std::size_t scratch, const Work& work) {
    constexpr double per_thread = 2e6;  // below this, starting a thread costs more than it saves
    const auto useful = static_cast<std::int64_t>(std::min(operations / per_thread, 1e6));
    const std::int64_t workers =
        std::max<std::int64_t>(1, std::min({count, static_cast<std::int64_t>(threads), useful}));
    if (workers == 1) {
        Scratch memory(scratch);
        for (std::int64_t i = 0; i < count; ++i) work(i, memory.bytes);
        return;
    }
    std::atomic<std::int64_t> next{0};
    std::vector<std::exception_ptr> failures(static_cast<std::size_t>(workers));
    auto body = [&](std::int64_t worker) {
        try {
            Scratch memory(scratch);
            for (std::int64_t i; (i = next.fetch_add(1)) < count;) work(i, memory.bytes);
        } catch (...) {
            failures[static_cast<std::size_t>(worker)] = std::current_exception();
        }
    };
    std::vector<std::thread> started;
    try {
        for (std::int64_t i = 1; i < workers; ++i) started.emplace_back(body, i);
    } catch (const std::system_error&) {
        // no more threads to be had: those there are share the work
    }
    body(0);
    for (auto& thread : started) thread.join();
    for (const auto& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

[[noreturn]] void reject(const std::string& what) {
    throw std::invalid_argument("linear attention: " + what);
}

void check_shape(const Shape& s, const Features& phi, int threads) {
    const std::pair<const char*, std::int64_t> at_least_zero[] = {
        {"batch", s.batch}, {"heads", s.heads}, {"length", s.length}, {"d_v", s.d_v}};
    for (const auto& [name, value] : at_least_zero)
        if (value < 0) reject(std::string(name) + " is " + std::to_string(value) + "; must be at least 0");
    if (s.d_k < 1 || s.d_phi < 1)
        reject("d_k is " + std::to_string(s.d_k) + " and d_phi " + std::to_string(s.d_phi) +
               "; must be at least 1");
    if (!phi.weight && s.d_k != s.d_phi)
        reject("d_k is " + std::to_string(s.d_k) + " and d_phi " + std::to_string(s.d_phi) +
               "; without a weight they must be equal");
    if (!phi.weight && phi.bias) reject("a bias without a weight");
    if (threads < 1) reject("threads is " + std::to_string(threads) + "; must be at least 1");
}

void check_tensor(const char* name, const View& view, std::int64_t elements, bool output) {
    if (elements && !view.data) reject(std::string(name) + " is a null pointer");
    for (const std::int64_t stride : view.stride)
        if (stride < 0)
            reject(std::string(name) + " has stride " + std::to_string(stride) + "; must be at least 0");
    if (output && elements && view.stride[3] != 1)
        reject(std::string(name) + " has stride " + std::to_string(view.stride[3]) +
               " in the last dimension; must be 1");
}

// An empty tensor may be a null pointer.
void check_pair(const char* name, const Shape& shape, const void* s, const void* z) {
    if (shape.d_v && !s != !z) reject(std::string(name) + ": S and z go together");
}

double operations(const Shape& s, bool mapped) {
    const double per_token =
        4.0 * static_cast<double>(s.d_phi) * static_cast<double>(s.d_v + (mapped ? s.d_k : 0) + 1);
    return per_token * static_cast<double>(s.batch * s.heads) * static_cast<double>(s.length);
}

}  // namespace

const char* isa() { return kernels().name; }

void forward(const ForwardParams& p) {
    const Shape& s = p.shape;
    const std::int64_t tokens = s.batch * s.heads * s.length;
    check_shape(s, p.phi, p.threads);
    check_tensor("q", p.q, tokens * s.d_k, false);
    check_tensor("k", p.k, tokens * s.d_k, false);
    check_tensor("v", p.v, tokens * s.d_v, false);
    check_tensor("out", p.out, tokens * s.d_v, true);
    check_pair("the initial state", s, p.initial.s, p.initial.z);
    check_pair("the final state", s, p.final.s, p.final.z);
    const Kernels& use = kernels();
    parallel(s.batch * s.heads, p.threads, operations(s, p.phi.weight), use.forward_scratch(p),
             [&](std::int64_t i, std::byte* memory) { use.forward(p, i, memory); });
}

void backward(const BackwardParams& p) {
    const Shape& s = p.shape;
    const std::int64_t tokens = s.batch * s.heads * s.length;
    check_shape(s, p.phi, p.threads);
    check_tensor("q", p.q, tokens * s.d_k, false);
    check_tensor("k", p.k, tokens * s.d_k, false);
    check_tensor("v", p.v, tokens * s.d_v, false);
    check_tensor("out", p.out, tokens * s.d_v, false);
    check_tensor("grad_out", p.grad_out, tokens * s.d_v, false);
    check_tensor("grad_q", p.grad_q, tokens * s.d_k, true);
    check_tensor("grad_k", p.grad_k, tokens * s.d_k, true);
    check_tensor("grad_v", p.grad_v, tokens * s.d_v, true);
    check_pair("the initial state", s, p.initial.s, p.initial.z);
    check_pair("the gradient of the initial state", s, p.grad_initial.s, p.grad_initial.z);
    const Kernels& use = kernels();
    parallel(s.batch * s.heads, p.threads, 3.0 * operations(s, p.phi.weight), use.backward_scratch(p),
             [&](std::int64_t i, std::byte* memory) { use.backward(p, i, memory); });
}

void step(const StepParams& p) {
    Shape s = p.shape;
    s.length = 1;
    const std::int64_t tokens = s.batch * s.heads;
    check_shape(s, p.phi, p.threads);
    check_tensor("q", p.q, tokens * s.d_k, false);
    check_tensor("k", p.k, tokens * s.d_k, false);
    check_tensor("v", p.v, tokens * s.d_v, false);
    check_tensor("out", p.out, tokens * s.d_v, true);
    if (tokens && (!p.initial.z || !p.final.z)) reject("a step needs a state and a place for the next one");
    check_pair("the state", s, p.initial.s, p.initial.z);
    check_pair("the new state", s, p.final.s, p.final.z);
    const Kernels& use = kernels();
    parallel(tokens, p.threads, operations(s, p.phi.weight), use.step_scratch(p),
             [&](std::int64_t i, std::byte* memory) { use.step(p, i, memory); });
}

}  // namespace asi::linear_attention
