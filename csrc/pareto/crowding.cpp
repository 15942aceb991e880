#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "pareto/pareto.h"

namespace asi::pareto {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Distance of two values that may be infinite: equal infinities are no distance apart.
double gap(double high, double low) { return high == low ? 0.0 : high - low; }

void crowd(Points points, std::size_t* members, std::size_t count, double* distance) {
    if (count <= 2) {
        for (std::size_t k = 0; k < count; ++k) distance[members[k]] = kInfinity;
        return;
    }
    for (std::size_t k = 0; k < count; ++k) distance[members[k]] = 0.0;
    for (std::size_t j = 0; j < points.m; ++j) {
        // Ties are broken by the other objectives, so that the result depends on the order of rows only among
        // equal ones.
        std::sort(members, members + count, [&](std::size_t a, std::size_t b) {
            if (points[a][j] != points[b][j]) return points[a][j] < points[b][j];
            for (std::size_t k = 0; k < points.m; ++k)
                if (points[a][k] != points[b][k]) return points[a][k] < points[b][k];
            return a < b;
        });
        const double low = points[members[0]][j], high = points[members[count - 1]][j];
        if (low == high) continue;  // an objective that is the same for all says nothing about crowding
        distance[members[0]] = distance[members[count - 1]] = kInfinity;
        // Infinite values are extremes of their own; the range is that of the finite ones.
        double least = kInfinity, most = -kInfinity;
        for (std::size_t k = 0; k < count; ++k) {
            const double v = points[members[k]][j];
            if (std::isfinite(v)) least = std::min(least, v), most = std::max(most, v);
        }
        const double range = most > least ? most - least : 1.0;
        for (std::size_t k = 1; k + 1 < count; ++k)
            distance[members[k]] += gap(points[members[k + 1]][j], points[members[k - 1]][j]) / range;
    }
}

}  // namespace

void crowding_distance(Points points, const std::int32_t* ranks, double* distance) {
    std::vector<std::size_t> order(points.n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return ranks[a] < ranks[b]; });
    for (std::size_t start = 0; start < points.n;) {
        std::size_t end = start + 1;
        while (end < points.n && ranks[order[end]] == ranks[order[start]]) ++end;
        crowd(points, order.data() + start, end - start, distance);
        start = end;
    }
}

}  // namespace asi::pareto
