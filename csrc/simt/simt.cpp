// The scheduler. Compiled without ThreadSanitizer's instrumentation in every build: its own memory is not the
// kernel's.
#include "simt/simt.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// Under a sanitizer the build says which: this file itself may not be instrumented.
#if SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {

Options options;

namespace {

constexpr std::size_t kStack = 64 * 1024;
constexpr unsigned kWarp = 32;

#if defined(__x86_64__)
// Saves the callee-saved registers and the stack pointer, takes those of another.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch, .-simt_switch
)");
using Context = void*;
#else
using Context = ucontext_t;
#endif

enum class Status { ready, at_barrier, in_collective, exited };

struct Fiber {
    Context context{};
    std::byte* stack = nullptr;
    Status status = Status::ready;
    Place place{};
    Site site;
    unsigned mask = 0;
    Collective op = nullptr;
    const void* in = nullptr;
    void* out = nullptr;
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> open;
    void* fake_stack = nullptr;
    void* tsan = nullptr;
};

struct Block {
    const std::function<void()>* kernel = nullptr;
    std::vector<Fiber> fibers;
    std::size_t running = 0;
    Context scheduler{};
    std::string error;
    void* scheduler_fake_stack = nullptr;
    const void* scheduler_bottom = nullptr;
    std::size_t scheduler_size = 0;
    void* scheduler_tsan = nullptr;
    char *start_order = nullptr, *barrier_order = nullptr;
};

Block* block = nullptr;

// What a fiber needs and can be used again. ThreadSanitizer takes what happened on one of its fibers for
// ordered: a home is used again in a later launch, which is ordered after this one, and never by another
// block of the same one.
struct Home {
    std::unique_ptr<std::byte[]> stack{new std::byte[kStack]};
    void* tsan = nullptr;
};
std::vector<std::vector<Home>> homes;     // of the blocks of a launch
[[maybe_unused]] void* reaper = nullptr;  // frees what the threads of a block have used

// An address that stands for an order between threads, for ThreadSanitizer. Start and barriers have one a
// block, or blocks would be ordered too.
[[maybe_unused]] char launch_end;

Fiber& self() { return block->fibers[block->running]; }

void raw_switch(Context& save, Context& load) {
#if defined(__x86_64__)
    simt_switch(&save, load);
#else
    swapcontext(&save, &load);
#endif
}

void to_scheduler([[maybe_unused]] bool for_good = false) {
#if SIMT_TSAN
    __tsan_switch_to_fiber(block->scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if SIMT_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &self().fake_stack, block->scheduler_bottom,
                                   block->scheduler_size);
#endif
    raw_switch(self().context, block->scheduler);
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(self().fake_stack, nullptr, nullptr);
#endif
}

void resume(std::size_t i) {
    block->running = i;
#if SIMT_TSAN
    __tsan_switch_to_fiber(self().tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if SIMT_ASAN
    __sanitizer_start_switch_fiber(&block->scheduler_fake_stack, self().stack, kStack);
#endif
    raw_switch(block->scheduler, self().context);
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(block->scheduler_fake_stack, nullptr, nullptr);
#endif
}

void fiber_main() {
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_bottom, &block->scheduler_size);
#endif
#if SIMT_TSAN
    __tsan_acquire(block->start_order);
#endif
    (*block->kernel)();
#if SIMT_TSAN
    __tsan_release(&launch_end);
#endif
    bool under_way = !self().open.empty();
    for (const auto& group : self().groups) under_way |= !group.empty();
    if (under_way) block->error = "a thread exits with asynchronous copies under way";
    self().status = Status::exited;
    to_scheduler(true);
    std::abort();  // nobody resumes an exited fiber
}

void prepare(Fiber& fiber, Home& home) {
    fiber.stack = home.stack.get();
#if SIMT_TSAN
    if (!home.tsan) home.tsan = __tsan_create_fiber(0);
    fiber.tsan = home.tsan;
#endif
#if defined(__x86_64__)
    auto top = reinterpret_cast<std::uintptr_t>(fiber.stack + kStack) & ~std::uintptr_t{15};
    auto* frame = reinterpret_cast<void**>(top) - 8;  // six registers, the address to return to, alignment
    std::memset(frame, 0, 8 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(&fiber_main);
    fiber.context = frame;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    makecontext(&fiber.context, fiber_main, 0);
#endif
}

std::string at(const Site& site) {
    const std::string file = site.file_name();
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

bool same(const Site& a, const Site& b) {
    return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

[[noreturn]] void fail(const std::string& what) {
    block->error = "thread " + std::to_string(self().place.thread.x) + " of block " +
                   std::to_string(self().place.block.x) + ": " + what;
    to_scheduler(true);
    std::abort();
}

// Lets the threads at a barrier go on when all have come. Says what is wrong when they cannot.
bool open_barrier() {
    auto& fibers = block->fibers;
    for (const Fiber& f : fibers)
        if (f.status != Status::at_barrier || !same(f.site, fibers[0].site)) {
            block->error = "divergence: ";
            for (const Fiber& g : fibers)
                if (g.status != f.status || !same(g.site, f.site)) {
                    const auto where = [](const Fiber& x) {
                        return "thread " + std::to_string(x.place.thread.x) +
                               (x.status == Status::exited       ? " has exited"
                                : x.status == Status::at_barrier ? " is at the barrier of " + at(x.site)
                                                                 : " is in the collective of " + at(x.site));
                    };
                    block->error += where(f) + ", " + where(g);
                    return false;
                }
            block->error += "all threads wait in the collective of " + at(f.site);
            return false;
        }
    for (Fiber& f : fibers) f.status = Status::ready;
    return true;
}

void run_block(std::vector<Home>& places, std::mt19937_64& rng) {
    auto& fibers = block->fibers;
    std::vector<std::size_t> order(fibers.size());
    std::iota(order.begin(), order.end(), 0);
    if (options.order == Order::reverse) std::reverse(order.begin(), order.end());
    if (places.size() < fibers.size()) places.resize(fibers.size());
    for (std::size_t i = 0; i < fibers.size(); ++i) prepare(fibers[i], places[i]);
    for (bool alive = true; alive && block->error.empty();) {
        if (options.order == Order::seeded) std::shuffle(order.begin(), order.end(), rng);
        bool moved = false;
        alive = false;
        for (const std::size_t i : order) {
            if (fibers[i].status == Status::ready) {
                resume(i);
                moved = true;
                if (!block->error.empty()) break;
            }
            alive |= fibers[i].status != Status::exited;
        }
        if (alive && !moved && block->error.empty()) open_barrier();
    }
}

}  // namespace

const Place& here() { return self().place; }

void launch(unsigned grid, unsigned threads, std::size_t shared, const std::function<void()>& kernel) {
    if (threads == 0 || threads > 1024 || threads % kWarp)
        throw std::runtime_error("launch: " + std::to_string(threads) + " threads");
    std::mt19937_64 rng(options.seed);
    std::vector<unsigned> blocks(grid);
    std::iota(blocks.begin(), blocks.end(), 0U);
    std::vector<char> orders(2 * std::size_t{grid});
    if (options.order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
    if (options.order == Order::seeded) std::shuffle(blocks.begin(), blocks.end(), rng);
#if SIMT_TSAN
    if (!reaper) reaper = __tsan_create_fiber(0);
#endif
    for (const unsigned number : blocks) {
        auto state = std::make_unique<Block>();
        block = state.get();
        // Exactly as large as asked for, aligned as on the device, fresh for each block.
        std::unique_ptr<std::byte, void (*)(void*)> memory(nullptr, std::free);
        if (shared) {
            void* got = nullptr;
            if (posix_memalign(&got, 128, shared) != 0) throw std::bad_alloc();
            memory.reset(static_cast<std::byte*>(got));
            std::memset(got, 0xFF, shared);
        }
        block->kernel = &kernel;
        block->start_order = &orders[2 * std::size_t{number}];
        block->barrier_order = block->start_order + 1;
        block->fibers.resize(threads);
        for (unsigned i = 0; i < threads; ++i)
            block->fibers[i].place = {{i}, {number}, {threads}, {grid}, memory.get()};
#if SIMT_TSAN
        void* const scheduler = block->scheduler_tsan = __tsan_get_current_fiber();
        __tsan_release(block->start_order);
#endif
#if SIMT_TSAN
        const std::size_t home = number;
#else
        const std::size_t home = 0;
#endif
        if (homes.size() <= home) homes.resize(home + 1);
        run_block(homes[home], rng);
        const std::string error = block->error;
#if SIMT_TSAN
        // Freed after all threads of the block, by somebody of whom the fibers of the next block know
        // nothing.
        __tsan_switch_to_fiber(reaper, __tsan_switch_to_fiber_no_sync);
        __tsan_acquire(&launch_end);
        if (!error.empty())
            (void)memory.release(), (void)state.release();  // its threads have not come to an end
#endif
        memory.reset();
        state.reset();
#if SIMT_TSAN
        __tsan_switch_to_fiber(scheduler, __tsan_switch_to_fiber_no_sync);
#endif
        if (!error.empty()) {
            homes.clear();  // fibers were left in the middle
            throw std::runtime_error(error);
        }
    }
#if SIMT_TSAN
    __tsan_acquire(&launch_end);
#endif
}

void barrier(const Site& site) {
    self().site = site;
    self().status = Status::at_barrier;
#if SIMT_TSAN
    __tsan_release(block->barrier_order);
#endif
    to_scheduler();
#if SIMT_TSAN
    __tsan_acquire(block->barrier_order);
#endif
}

void collective(unsigned mask, Collective op, const void* in, void* out, const Site& site) {
    Fiber& me = self();
    const std::size_t first = block->running / kWarp * kWarp;
    const unsigned lane = block->running % kWarp;
    if (!(mask >> lane & 1U)) fail("its own lane is not in the mask of the collective of " + at(site));
    me.site = site, me.mask = mask, me.op = op, me.in = in, me.out = out;
    me.status = Status::in_collective;
    const void* ins[kWarp] = {};
    void* outs[kWarp] = {};
    bool complete = true;
    for (unsigned i = 0; i < kWarp; ++i) {
        if (!(mask >> i & 1U)) continue;
        Fiber& other = block->fibers[first + i];
        if (other.status == Status::exited)
            fail("lane " + std::to_string(i) + " of the mask has exited before the collective of " +
                 at(site));
        if (other.status != Status::in_collective) {
            if (other.status == Status::at_barrier)
                fail("lane " + std::to_string(i) + " of the mask is at the barrier of " + at(other.site) +
                     ", not in the collective of " + at(site));
            complete = false;
            continue;
        }
        if (other.mask != mask || other.op != op || !same(other.site, site))
            fail("lane " + std::to_string(i) + " of the mask is in the collective of " + at(other.site) +
                 " or has another mask, not in that of " + at(site));
        ins[i] = other.in, outs[i] = other.out;
    }
    if (!complete) {
        to_scheduler();
        return;
    }
    op(ins, outs);
    for (unsigned i = 0; i < kWarp; ++i)
        if (mask >> i & 1U) block->fibers[first + i].status = Status::ready;
}

void copy_start(void* to, const void* from, std::size_t bytes, std::size_t zeros) {
    self().open.push_back({to, from, bytes, zeros});
}

void copy_commit() {
    self().groups.push_back(std::move(self().open));
    self().open.clear();
}

bool copy_take(unsigned newest, Copy& copy) {
    auto& groups = self().groups;
    while (groups.size() > newest && groups.front().empty()) groups.erase(groups.begin());
    if (groups.size() <= newest) return false;
    copy = groups.front().back();
    groups.front().pop_back();
    return true;
}

}  // namespace simt
