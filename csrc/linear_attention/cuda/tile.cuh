// Matrix products of a thread block: C (M x N, float, spread over the registers of all threads) += A B with A
// and B in memory. Two classes of the same interface: FmaTile multiplies in float32, TensorTile with mma.sync
// in bf16.
//
//   clear()               C = 0
//   add<AT, BT, K>(...)   C += A B; A is stored (M, K), with AT (K, M); B is stored (K, N), with BT (N, K)
//   pairs(f)              f(row, column, c, c') for each two neighbouring elements of this thread, by
//   reference
#pragma once

#include "linear_attention/cuda/device.cuh"

namespace asi::linear_attention::cuda {

constexpr int smaller(int a, int b) { return a < b ? a : b; }

template <int M, int N, int Threads>
struct FmaTile {
    using Element = float;
    static constexpr int kActive = smaller(Threads, M* N / 2);  // two elements a thread at least
    static constexpr int kEach = M * N / kActive;
    static constexpr int kColumns = kEach >= 64 ? 8 : kEach >= 16 ? 4 : 2, kRows = kEach / kColumns;
    static constexpr int kAcross = N / kColumns, kDown = M / kRows;  // threads along a row, along a column
    static_assert(kRows * kDown == M && kColumns * kAcross == N && kAcross * kDown == kActive);

    float c[kRows][kColumns];
    int across, down;

    ASI_DEVICE FmaTile() : across(thread_index() % kAcross), down(thread_index() / kAcross) { clear(); }

    ASI_DEVICE void clear() {
        ASI_UNROLL for (int i = 0; i < kRows; ++i) ASI_UNROLL for (int j = 0; j < kColumns; ++j) c[i][j] = 0;
    }
    ASI_DEVICE int row(int i) const { return down + i * kDown; }
    ASI_DEVICE int column(int j) const { return 2 * across + j / 2 * 2 * kAcross + j % 2; }

    template <bool AT, bool BT, int K>
    ASI_DEVICE void add(const float* a, int a_row, const float* b, int b_row) {
        if (kActive < Threads && thread_index() >= kActive) return;
#if defined(__CUDACC__)
#pragma unroll 2
#endif
        for (int k = 0; k < K; k += 4) {
            float x[kRows][4], y[kColumns][4];
            ASI_UNROLL for (int i = 0; i < kRows; ++i) fetch<AT>(a, a_row, row(i), k, x[i]);
            ASI_UNROLL for (int j = 0; j < kColumns; ++j) fetch<!BT>(b, b_row, column(j), k, y[j]);
            ASI_UNROLL for (int s = 0; s < 4; ++s) ASI_UNROLL for (int i = 0; i < kRows; ++i)
                ASI_UNROLL for (int j = 0; j < kColumns; ++j) c[i][j] += x[i][s] * y[j][s];
        }
    }

    template <class F>
    ASI_DEVICE void pairs(F f) {
        if (kActive < Threads && thread_index() >= kActive) return;
        ASI_UNROLL for (int i = 0; i < kRows; ++i) ASI_UNROLL for (int j = 0; j < kColumns; j += 2)
            f(row(i), column(j), c[i][j], c[i][j + 1]);
    }

  private:
    // Elements k to k + 3 of line i: neighbours, or `step` apart when the matrix is stored across.
    template <bool Across>
    ASI_DEVICE static void fetch(const float* from, int step, int i, int k, float (&to)[4]) {
        if constexpr (Across) {
            ASI_UNROLL for (int s = 0; s < 4; ++s) to[s] = from[(k + s) * step + i];
        } else {
            const Four four = load4(from + i * step + k);
            ASI_UNROLL for (int s = 0; s < 4; ++s) to[s] = four.x[s];
        }
    }
};

template <int M, int N, int Threads>
struct TensorTile {
    using Element = bf16;
    static constexpr int kWarps = Threads / 32;
    static constexpr int kDown = smaller(M / 16, kWarps), kAcross = kWarps / kDown;  // warps
    static constexpr int kTall = M / 16 / kDown, kWide = N / 8 / kAcross;  // 16 x 8 pieces of a warp
    static_assert(kTall * kDown * 16 == M && kWide * kAcross * 8 == N && kDown * kAcross == kWarps);
    static_assert(kWide == 1 || kWide % 2 == 0);

    float c[kTall][kWide][4];
    int lane, top, left;

    ASI_DEVICE TensorTile() : lane(thread_index() % 32) {
        const int warp = thread_index() / 32;
        top = warp / kAcross * kTall * 16, left = warp % kAcross * kWide * 8;
        clear();
    }

    ASI_DEVICE void clear() {
        ASI_UNROLL for (int i = 0; i < kTall; ++i) ASI_UNROLL for (int j = 0; j < kWide; ++j)
            ASI_UNROLL for (int e = 0; e < 4; ++e) c[i][j][e] = 0;
    }

    template <bool AT, bool BT, int K>
    ASI_DEVICE void add(const bf16* a, int a_row, const bf16* b, int b_row) {
        // One ldmatrix brings B for two pieces side by side or, when the warp has only one, for 32 of K.
        constexpr int step = kWide == 1 ? 32 : 16;
        static_assert(K % step == 0);
        const int line = lane % 8, matrix = lane / 8;
        const int b_n = kWide == 1 ? 0 : matrix / 2 * 8, b_k = kWide == 1 ? matrix * 8 : matrix % 2 * 8;
#if defined(__CUDACC__)
#pragma unroll Threads >= 256 ? 1 : 2  // registers are short where the state is large
#endif
        for (int k = 0; k < K; k += step) {
            std::uint32_t x[kTall][step / 16][4];
            ASI_UNROLL for (int i = 0; i < kTall; ++i) ASI_UNROLL for (int s = 0; s < step / 16; ++s) {
                const int m = top + i * 16 + matrix % 2 * 8, at = k + s * 16 + matrix / 2 * 8;
                if constexpr (AT)
                    load_matrices<true>(x[i][s], a + (at + line) * a_row + m);
                else
                    load_matrices<false>(x[i][s], a + (m + line) * a_row + at);
            }
            ASI_UNROLL for (int j = 0; j < kWide; j += 2) {
                const int n = left + j * 8 + b_n, at = k + b_k;
                std::uint32_t y[4];
                if constexpr (BT)
                    load_matrices<false>(y, b + (n + line) * b_row + at);
                else
                    load_matrices<true>(y, b + (at + line) * b_row + n);
                ASI_UNROLL for (int i = 0; i < kTall; ++i) {
                    mma(c[i][j], x[i][0], y[0], y[1]);
                    if constexpr (kWide == 1)
                        mma(c[i][j], x[i][step / 16 - 1], y[2], y[3]);
                    else
                        mma(c[i][j + 1], x[i][0], y[2], y[3]);
                }
            }
        }
    }

    template <class F>
    ASI_DEVICE void pairs(F f) {
        ASI_UNROLL for (int i = 0; i < kTall; ++i) ASI_UNROLL for (int j = 0; j < kWide; ++j)
            ASI_UNROLL for (int h = 0; h < 2; ++h)
                f(top + i * 16 + h * 8 + lane / 4, left + j * 8 + lane % 4 * 2, c[i][j][2 * h],
                  c[i][j][2 * h + 1]);
    }
};

}  // namespace asi::linear_attention::cuda
