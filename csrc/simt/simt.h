// CUDA kernels on the CPU, to test them where there is no GPU. The same source compiles with a C++ compiler;
// each CUDA thread of a block is a fiber that runs until it waits, blocks run one after another. What
// hardware leaves to chance is made as bad as allowed: the order of threads is chosen by the caller, shared
// memory starts as NaN, an asynchronous copy arrives no sooner than it is waited for (kernel code sees NaN
// until then).
//
// Checked here: all threads of a block meet at the same barrier, all lanes of a mask at the same warp
// collective, nobody waits for an exited thread. Left to sanitizers: bounds and alignment (one heap buffer
// per tensor and for shared memory), and races: under ThreadSanitizer every CUDA thread is a fiber of its own
// and only a barrier and the end of a launch order memory; neither the switch between fibers nor a warp
// collective does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

namespace simt {

enum class Order { forward, reverse, seeded };

struct Options {
    Order order = Order::forward;
    std::uint64_t seed = 0;
};
extern Options options;  // of the launches that follow

struct Index {
    unsigned x;
};
struct Place {
    Index thread, block, block_size, grid_size;
    std::byte* shared;
};
const Place& here();  // of the running fiber

// Runs `kernel` in grid * threads fibers; throws std::runtime_error naming what a thread did wrong and where.
void launch(unsigned grid, unsigned threads, std::size_t shared, const std::function<void()>& kernel);

using Site = std::source_location;

void barrier(const Site& site);

// What all lanes of `mask` do together: each brings `in` and takes `out`; the last to come computes all.
// op(in, out): in[lane], out[lane] of the 32 lanes, nullptr for those not in the mask.
using Collective = void (*)(const void* const* in, void* const* out);
void collective(unsigned mask, Collective op, const void* in, void* out, const Site& site);

// Pending copies of this thread, oldest group first. `start` begins one in the open group.
void copy_start(void* to, const void* from, std::size_t bytes, std::size_t zeros);
void copy_commit();
struct Copy {
    void* to;
    const void* from;
    std::size_t bytes, zeros;
};
// Takes out one copy of a group that is not among the `newest` last groups; false when none is left.
bool copy_take(unsigned newest, Copy& copy);

}  // namespace simt
