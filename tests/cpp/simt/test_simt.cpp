// The SIMT layer itself: does it find what it promises to find, and are the fragments of the tensor-core
// instructions laid out as the PTX ISA says? The formulas here are written from the tables of PTX ISA 8.x,
// sections "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix", not from the code
// under test.
//
//   test_simt                        every check
//   test_simt barrier|blocks|shuffle a planted race, for ThreadSanitizer to find
#include <cstdio>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "linear_attention/cuda/tile.cuh"
#include "simt/simt.h"

namespace cuda = asi::linear_attention::cuda;

#if SIMT_TSAN
extern "C" const char* __tsan_default_options() { return "halt_on_error=1:history_size=0"; }
#endif

namespace {

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    ++failures;
    std::printf("failed: %s\n", what);
}

template <class Kernel>
void expect_error(const char* part, const Kernel& kernel) {
    for (const auto order : {simt::Order::forward, simt::Order::reverse, simt::Order::seeded}) {
        simt::options.order = order;
        std::string message = "nothing";
        try {
            simt::launch(1, 64, 1024, kernel);
        } catch (const std::runtime_error& error) {
            message = error.what();
        }
        if (message.find(part) != std::string::npos) continue;
        ++failures;
        std::printf("failed: expected an error with '%s', got %s\n", part, message.c_str());
    }
}

[[maybe_unused]] void errors() {
    expect_error("is at the barrier of", [] {
        if (cuda::thread_index() < 32)
            cuda::barrier();
        else
            cuda::barrier();
    });
    expect_error("has exited", [] {
        if (cuda::thread_index() == 5) return;
        cuda::barrier();
    });
    expect_error("lane 3 of the mask", [] {
        if (cuda::thread_index() == 3) return;
        cuda::shuffle_xor(cuda::kAllLanes, 1.0F, 1);
        cuda::barrier();
    });
    expect_error("its own lane is not in the mask", [] { cuda::shuffle_xor(0xFFFFU, 1.0F, 1); });
    expect_error("asynchronous copies under way", [] {
        alignas(16) static float from[4] = {};
        cuda::copy_async16(cuda::shared_memory() + 16 * cuda::thread_index(), from, true);
    });
}

void memory() {
    simt::options.order = simt::Order::forward;
    alignas(16) float from[4] = {1, 2, 3, 4};
    simt::launch(1, 32, 512, [&] {
        auto* shared = reinterpret_cast<float*>(cuda::shared_memory()) + 4 * cuda::thread_index();
        expect(std::isnan(shared[0]) && std::isnan(shared[3]), "shared memory starts as NaN");
        shared[0] = 5;
        cuda::copy_async16(shared, from, true);
        cuda::copy_async_commit();
        expect(std::isnan(shared[0]), "an asynchronous copy is not there before it is waited for");
        cuda::copy_async_commit();
        cuda::copy_async_wait<2>();
        expect(std::isnan(shared[0]), "waiting for older groups does not bring it");
        cuda::copy_async_wait<1>();
        expect(shared[0] == 1 && shared[3] == 4, "an asynchronous copy is there after it was waited for");
        const float sum = cuda::shuffle_xor(cuda::kAllLanes, static_cast<float>(cuda::thread_index()), 5);
        expect(sum == static_cast<float>(cuda::thread_index() ^ 5), "shuffle_xor");
    });
}

float value(std::uint32_t pair, int half) { return cuda::bits_float(half ? pair & 0xFFFF0000U : pair << 16); }

std::uint16_t bits(float x) {
    cuda::bf16 y;
    cuda::narrow(x, y);
    return y.bits;
}

void fragments() {
    std::mt19937 rng(3);
    std::uniform_int_distribution<int> small(-8, 8);  // exact in bfloat16
    float a[16][16], b[16][8], c[16][8];
    for (auto& row : a)
        for (float& x : row) x = static_cast<float>(small(rng));
    for (auto& row : b)
        for (float& x : row) x = static_cast<float>(small(rng));
    for (auto& row : c)
        for (float& x : row) x = static_cast<float>(small(rng));
    simt::launch(1, 32, 0, [&] {
        const int lane = cuda::thread_index(), group = lane / 4, in_group = lane % 4;
        std::uint32_t ra[4] = {}, rb[2] = {};
        float rc[4];
        for (int i = 0; i < 8; ++i) {  // a0 .. a7
            const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
            const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            ra[i / 2] |= static_cast<std::uint32_t>(bits(a[row][column])) << (16 * (i & 1));
        }
        for (int i = 0; i < 4; ++i) {  // b0 .. b3
            const int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
            rb[i / 2] |= static_cast<std::uint32_t>(bits(b[row][group])) << (16 * (i & 1));
        }
        for (int i = 0; i < 4; ++i) rc[i] = c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)];
        cuda::mma(rc, ra, rb[0], rb[1]);
        for (int i = 0; i < 4; ++i) {
            const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
            float want = c[row][column];
            for (int k = 0; k < 16; ++k) want += a[row][k] * b[k][column];
            expect(rc[i] == want, "mma.m16n8k16");
        }
    });
    simt::launch(1, 32, 32 * 16, [&] {
        const int lane = cuda::thread_index();
        auto* rows =
            reinterpret_cast<cuda::bf16*>(cuda::shared_memory());  // row r of matrix m at 8 (8 m + r)
        for (int e = 0; e < 8; ++e) rows[8 * lane + e].bits = bits(static_cast<float>(lane * 8 + e));
        cuda::barrier();
        std::uint32_t r[4];
        cuda::load_matrices<false>(r, rows + 8 * lane);
        for (int m = 0; m < 4; ++m)
            for (int h = 0; h < 2; ++h)
                expect(value(r[m], h) == static_cast<float>((8 * m + lane / 4) * 8 + lane % 4 * 2 + h),
                       "ldmatrix");
        cuda::load_matrices<true>(r, rows + 8 * lane);
        for (int m = 0; m < 4; ++m)
            for (int h = 0; h < 2; ++h)
                expect(value(r[m], h) == static_cast<float>((8 * m + lane % 4 * 2 + h) * 8 + lane / 4),
                       "ldmatrix.trans");
    });
}

// C = A B of a block in all four storage orders, against three loops.
template <template <int, int, int> class TileOf, int M, int N, int K, int Threads, bool AT, bool BT>
void product() {
    using Tile = TileOf<M, N, Threads>;
    using E = typename Tile::Element;
    constexpr int a_row = (AT ? M : K) + 16 / static_cast<int>(sizeof(E)),
                  b_row = (BT ? K : N) + 16 / static_cast<int>(sizeof(E));
    std::mt19937 rng(M + N);
    std::uniform_int_distribution<int> small(-8, 8);
    std::vector<float> a(M * K), b(K * N), c(M * N, NAN);
    for (float& x : a) x = static_cast<float>(small(rng));
    for (float& x : b) x = static_cast<float>(small(rng));
    simt::launch(1, Threads, sizeof(E) * ((AT ? K : M) * a_row + (BT ? N : K) * b_row), [&] {
        auto* sa = reinterpret_cast<E*>(cuda::shared_memory());
        auto* sb = sa + (AT ? K : M) * a_row;
        for (int i = cuda::thread_index(); i < M * K; i += Threads)
            cuda::narrow(a[i], AT ? sa[i % K * a_row + i / K] : sa[i / K * a_row + i % K]);
        for (int i = cuda::thread_index(); i < K * N; i += Threads)
            cuda::narrow(b[i], BT ? sb[i % N * b_row + i / N] : sb[i / N * b_row + i % N]);
        cuda::barrier();
        Tile tile;
        tile.template add<AT, BT, K>(sa, a_row, sb, b_row);
        tile.pairs([&](int i, int j, float x, float y) { c[i * N + j] = x, c[i * N + j + 1] = y; });
    });
    bool good = true;
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
            float want = 0;
            for (int k = 0; k < K; ++k) want += a[i * K + k] * b[k * N + j];
            good = good && c[i * N + j] == want;
        }
    expect(good, "the product of a block");
}

template <template <int, int, int> class TileOf, int M, int N, int K, int Threads>
void products() {
    product<TileOf, M, N, K, Threads, false, false>();
    product<TileOf, M, N, K, Threads, false, true>();
    product<TileOf, M, N, K, Threads, true, false>();
    product<TileOf, M, N, K, Threads, true, true>();
}

void conversions() {
    using cuda::narrow, cuda::widen;
    bool good = true;
    for (std::uint32_t i = 0; i < 65536; ++i) {  // there and back: every number stays what it is
        const cuda::f16 x{static_cast<std::uint16_t>(i)};
        const cuda::bf16 y{static_cast<std::uint16_t>(i)};
        cuda::f16 x2;
        cuda::bf16 y2;
        narrow(widen(x), x2), narrow(widen(y), y2);
        good = good && (std::isnan(widen(x)) ? std::isnan(widen(x2)) : x.bits == x2.bits);
        good = good && (std::isnan(widen(y)) ? std::isnan(widen(y2)) : y.bits == y2.bits);
    }
    expect(good, "conversions there and back");
    cuda::f16 half;
    narrow(65519.0F, half), expect(half.bits == 0x7BFF, "65519 rounds to the largest float16");
    narrow(65520.0F, half), expect(half.bits == 0x7C00, "65520 rounds to infinity");
    narrow(1.0F + 1.0F / 2048, half), expect(half.bits == 0x3C00, "float16 ties to even, down");
    narrow(1.0F + 3.0F / 2048, half), expect(half.bits == 0x3C02, "float16 ties to even, up");
    expect(widen(cuda::f16{0x3555}) == 0.333251953125F, "a third in float16");
    cuda::bf16 brain;
    narrow(1.0F + 1.0F / 256, brain), expect(brain.bits == 0x3F80, "bfloat16 ties to even, down");
    narrow(1.0F + 3.0F / 256, brain), expect(brain.bits == 0x3F82, "bfloat16 ties to even, up");
}

// --- planted races
// ------------------------------------------------------------------------------------------------

void race(const std::string& which) {
    std::vector<float> out(64);
    if (which == "barrier")
        simt::launch(1, 64, 256, [&] {
            auto* shared = reinterpret_cast<float*>(cuda::shared_memory());
            shared[cuda::thread_index()] = 1;
            out[cuda::thread_index()] = shared[(cuda::thread_index() + 1) % 64];
        });
    if (which == "blocks")
        simt::launch(2, 32, 0, [&] {
            cuda::barrier();
            out[cuda::thread_index()] += 1;
            cuda::barrier();
        });
    if (which == "shuffle")
        simt::launch(1, 32, 128, [&] {
            auto* shared = reinterpret_cast<float*>(cuda::shared_memory());
            shared[cuda::thread_index()] = 1;
            const float x = cuda::shuffle_xor(cuda::kAllLanes, 1.0F, 1);
            out[cuda::thread_index()] = x + shared[cuda::thread_index() ^ 1];
        });
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1) {
        race(arguments[1]);
        return 0;
    }
#if !SIMT_ASAN && !SIMT_TSAN
    errors();  // a thread that fails is left where it is, with what it has allocated
#endif
    memory();
    fragments();
    conversions();
    products<cuda::TensorTile, 32, 32, 32, 128>();
    products<cuda::TensorTile, 64, 64, 32, 128>();
    products<cuda::TensorTile, 32, 32, 128, 256>();
    products<cuda::FmaTile, 16, 16, 128, 256>();
    products<cuda::FmaTile, 32, 64, 32, 128>();
    std::printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
