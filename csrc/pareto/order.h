// Sorting by doubles, made for objectives: about n steps when values are spread out, n log n at worst.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace asi::pareto {

template <std::size_t K>
struct Row {
    double at[K];
    std::uint32_t id;
};

template <std::size_t K>
struct Copied {
    const Row<K>* rows;
    const Row<K>& operator()(std::size_t i) const { return rows[i]; }
};

struct Range {
    double low, high;
};

// Of the finite numbers that rows begin with; low > high when there are none.
template <class Make>
Range finite_range(std::size_t n, const Make& row) {
    constexpr std::size_t kLanes = 4;  // a single minimum would wait for the one before it
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double low[kLanes], high[kLanes];
    std::fill(low, low + kLanes, kInfinity);
    std::fill(high, high + kLanes, -kInfinity);
    const auto widen = [&](std::size_t lane, double x) {
        low[lane] = x < low[lane] ? x : low[lane];
        high[lane] = x > high[lane] ? x : high[lane];
    };
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (std::size_t lane = 0; lane < kLanes; ++lane) widen(lane, row(i + lane).at[0]);
    for (; i < n; ++i) widen(0, row(i).at[0]);
    Range range{*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
    if (std::isfinite(range.low) && std::isfinite(range.high)) return range;
    range = {kInfinity, -kInfinity};
    for (i = 0; i < n; ++i) {
        const double x = row(i).at[0];
        if (std::isfinite(x)) range = {std::min(range.low, x), std::max(range.high, x)};
    }
    return range;
}

// Rows 0..n-1 in order of `less`, which must look at their first number first; `row` makes them.
//
// One pass of sorting by address calculation (Isaac and Singleton 1956; Knuth, volume 3, section 5.2.1): a
// row's bucket is where its number lies between the least and the largest. Comparing what lands in one bucket
// finishes it.
template <std::size_t K, class Make, class Less>
std::vector<Row<K>> sorted_rows(std::size_t n, const Make& row, const Less& less, int again = 2) {
    constexpr std::size_t kFew = 32;    // up to here, insertion is quicker than std::sort
    constexpr std::size_t kMany = 256;  // and from here, another pass
    std::vector<Row<K>> rows(n);
    const Range range = finite_range(n, row);
    const double last = static_cast<double>(n) - 1, scale = last / (range.high - range.low);
    // A range of nothing, or beyond that of doubles: no interpolation.
    if (n < kFew || !(scale > 0) || !std::isfinite(scale)) {
        for (std::size_t i = 0; i < n; ++i) rows[i] = row(i);
        if (!std::is_sorted(rows.begin(), rows.end(), less)) std::sort(rows.begin(), rows.end(), less);
        return rows;
    }
    // Rounding never swaps two numbers, so that a smaller one never lands in a later bucket. Infinities go to
    // the ends.
    const auto bucket = [&, low = range.low](std::size_t of) {
        const double at = (row(of).at[0] - low) * scale;
        return static_cast<std::size_t>(static_cast<std::int64_t>(std::max(0.0, std::min(at, last))));
    };
    std::vector<std::uint32_t> ends(n + 2);
    for (std::size_t i = 0; i < n; ++i) ++ends[bucket(i) + 2];
    for (std::size_t b = 2; b < n + 2; ++b) ends[b] += ends[b - 1];
    for (std::size_t i = 0; i < n; ++i) rows[ends[bucket(i) + 1]++] = row(i);
    for (std::size_t b = 0; b <= n; ++b) {
        const std::size_t count = ends[b + 1] - ends[b];
        const auto begin = rows.begin() + ends[b], end = rows.begin() + ends[b + 1];
        if (count <= kFew || std::is_sorted(begin, end, less)) continue;  // many are copies of one point
        if (count <= kMany || again == 0) {
            std::sort(begin, end, less);
            continue;
        }
        // A few far values, such as penalties, have left the rest in one bucket.
        const std::vector<Row<K>> crowd(begin, end);
        const std::vector<Row<K>> sorted = sorted_rows<K>(count, Copied<K>{crowd.data()}, less, again - 1);
        std::copy(sorted.begin(), sorted.end(), begin);
    }
    for (std::size_t i = 1; i < n; ++i) {
        if (!less(rows[i], rows[i - 1])) continue;
        const Row<K> moved = rows[i];
        std::size_t at = i;
        do rows[at] = rows[at - 1];
        while (--at != 0 && less(moved, rows[at - 1]));
        rows[at] = moved;
    }
    return rows;
}

}  // namespace asi::pareto
