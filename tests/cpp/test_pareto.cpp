// Pareto code against the definition: a point's rank is one more than the largest rank among those dominating
// it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "pareto/bitset.h"
#include "pareto/dominance.h"
#include "pareto/order.h"
#include "pareto/pareto.h"

using namespace asi::pareto;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
int failures = 0;

void check(bool ok, const char* what, std::size_t n, std::size_t m, int kind) {
    if (ok) return;
    ++failures;
    std::printf("FAILED: %s (n=%zu m=%zu kind=%d)\n", what, n, m, kind);
}

std::vector<std::int32_t> by_definition(Points points) {
    std::vector<std::int32_t> ranks(points.n, 0);
    for (std::size_t left = points.n; left != 0;) {
        std::vector<std::size_t> front;
        const std::int32_t current = *std::max_element(ranks.begin(), ranks.end()) + 1;
        for (std::size_t i = 0; i < points.n; ++i) {
            if (ranks[i] != 0) continue;
            bool dominated = false;
            for (std::size_t k = 0; k < points.n && !dominated; ++k)
                dominated = ranks[k] == 0 && dominates(points[k], points[i], points.m);
            if (!dominated) front.push_back(i);
        }
        for (const std::size_t i : front) ranks[i] = current;
        left -= front.size();
    }
    return ranks;
}

// The same for many points: dominators come first in lexicographic order.
std::vector<std::uint32_t> lexicographic(Points points) {
    std::vector<std::uint32_t> order(points.n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
        return std::lexicographical_compare(points[a], points[a] + points.m, points[b], points[b] + points.m);
    });
    return order;
}

std::vector<std::int32_t> by_dominators(Points points) {
    const std::vector<std::uint32_t> order = lexicographic(points);
    std::vector<std::int32_t> ranks(points.n);
    for (std::size_t at = 0; at < points.n; ++at) {
        const std::uint32_t i = order[at];
        ranks[i] = 1;
        for (std::size_t before = 0; before < at; ++before) {
            const std::uint32_t k = order[before];
            if (ranks[k] >= ranks[i] && dominates(points[k], points[i], points.m)) ranks[i] = ranks[k] + 1;
        }
    }
    return ranks;
}

// Bitsets alone, with so many sets.
std::vector<std::int32_t> by_bitsets(Points points, std::size_t sets) {
    std::vector<std::uint32_t> distinct;
    std::vector<std::size_t> group(points.n);
    for (const std::uint32_t i : lexicographic(points)) {
        if (distinct.empty() || !equal(points[distinct.back()], points[i], points.m)) distinct.push_back(i);
        group[i] = distinct.size() - 1;
    }
    const std::vector<std::int32_t> found = rank_by_bitsets(points, distinct, sets);
    std::vector<std::int32_t> ranks(points.n);
    for (std::size_t i = 0; i < points.n; ++i) ranks[i] = found[group[i]];
    return ranks;
}

std::vector<double> sample(std::size_t n, std::size_t m, int kind, std::mt19937_64& random) {
    std::vector<double> data(n * m);
    std::uniform_real_distribution<double> uniform(0, 1);
    for (std::size_t i = 0; i < n; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < m; ++j) {
            double& v = data[i * m + j];
            v = uniform(random);
            if (kind == 1) v = std::floor(4 * v);                 // ties and duplicates
            if (kind == 2) v = static_cast<double>(i) + 0.1 * v;  // a chain
            if (kind == 3 && j == 0) v = 0.5;                     // constant objective
            if (kind == 4 && v < 0.2) v = infinity;
            if (kind == 4 && v > 0.2 && v < 0.3) v = -infinity;
            if (kind == 6)
                v = (j == 0 ? -1.0 : 1.0) * (static_cast<double>(i) + 3 * v);   // first against the rest
            if (kind == 7) v = static_cast<double>(i / 3) + std::floor(2 * v);  // a thick chain with ties
            if (kind == 8 && v < 0.05)
                v = std::ldexp(1.0, static_cast<int>(random() % 2000) - 1000);  // far values
            sum += v;
        }
        if (kind == 5) data[i * m] -= sum;  // one front
    }
    return data;
}

// Moves random points to where others of the same kind lie and compares all ranks with a new sort.
bool moves(Front& front, std::vector<double> data, std::size_t m, int kind, std::mt19937_64& random) {
    const std::size_t n = front.size();
    const std::vector<double> places = sample(n, m, kind, random);
    for (std::size_t step = 0; n != 0 && step < 40; ++step) {
        const std::size_t id = random() % n, from = random() % n;
        std::copy(places.begin() + static_cast<std::ptrdiff_t>(from * m),
                  places.begin() + static_cast<std::ptrdiff_t>((from + 1) * m),
                  data.begin() + static_cast<std::ptrdiff_t>(id * m));
        const std::int32_t returned = front.update(id, data.data() + id * m);
        std::vector<std::int32_t> ranks(n);
        rank({data.data(), n, m}, ranks.data());
        if (front.ranks() != ranks || returned != ranks[id]) return false;
        std::size_t listed = 0;
        for (std::size_t r = 1; !front.members(r).empty(); ++r)
            for (const std::int32_t member : front.members(r)) {
                if (ranks[static_cast<std::size_t>(member)] != static_cast<std::int32_t>(r)) return false;
                ++listed;
            }
        if (listed != n) return false;
    }
    return true;
}

}  // namespace

int main() {
    std::mt19937_64 random(7);
    for (int kind = 0; kind < 9; ++kind) {
        for (std::size_t m = 1; m <= 5; ++m) {
            for (const std::size_t n : {0, 1, 2, 3, 17, 200, 300}) {
                const std::vector<double> data = sample(n, m, kind, random);
                const Points points{data.data(), n, m};
                std::vector<std::int32_t> ranks(n);
                rank(points, ranks.data());
                if (n != 0) check(ranks == by_definition(points), "rank", n, m, kind);
                Front front(m);
                bool returned = true;
                for (std::size_t i = 0; i < n; ++i) {
                    const std::int32_t r = front.insert(points[i]);
                    returned &= r == front.ranks()[i];
                }
                check(returned, "Front::insert returns the rank", n, m, kind);
                check(front.ranks() == ranks, "Front::ranks", n, m, kind);
                check(moves(front, data, m, kind, random), "Front::update", n, m, kind);
                std::vector<double> distance(n);
                crowding_distance(points, ranks.data(), distance.data());
                check(std::none_of(distance.begin(), distance.end(),
                                   [](double d) { return std::isnan(d) || d < 0; }),
                      "crowding distance is a number", n, m, kind);
            }
        }
    }
    // Around the ends of words, of lines of bits, of what is scanned instead, and of sets.
    for (int kind = 0; kind < 9; ++kind) {
        for (std::size_t m = 2; m <= 7; ++m) {
            for (const std::size_t n : {149, 150, 151, 512, 513, 1030, 1300}) {
                const std::vector<double> data = sample(n, m, kind, random);
                const Points points{data.data(), n, m};
                std::vector<std::int32_t> ranks(n);
                rank(points, ranks.data());
                check(ranks == by_dominators(points), "rank of many", n, m, kind);
            }
            for (const std::size_t n : {0, 1, 2, 63, 64, 65, 127, 128, 129, 511, 512, 513, 700}) {
                const std::vector<double> data = sample(n, m, kind, random);
                const Points points{data.data(), n, m};
                const std::vector<std::int32_t> ranks = by_dominators(points);
                for (const std::size_t sets : {1, 2, 7, 128})
                    check(by_bitsets(points, sets) == ranks, "bitsets", n, m, kind);
            }
        }
    }
    // Sorting where interpolation is of no use: everything in one bucket, in one after another, or out of
    // range.
    for (int kind = 0; kind < 5; ++kind) {
        for (const std::size_t n : {1, 2, 33, 400, 3000}) {
            std::vector<double> x(n);
            for (std::size_t i = 0; i < n; ++i) {
                const double u = std::uniform_real_distribution<double>(0, 1)(random);
                if (kind == 0) x[i] = i == n / 2 ? 1e300 : u;
                if (kind == 1) x[i] = std::ldexp(1.0, static_cast<int>(random() % 2000) - 1000);
                if (kind == 2) x[i] = (u < 0.5 ? -1 : 1) * std::numeric_limits<double>::max() * u;
                if (kind == 3)
                    x[i] = std::numeric_limits<double>::denorm_min() * static_cast<double>(random() % 9);
                if (kind == 4) x[i] = u < 0.3 ? -infinity : u < 0.6 ? infinity : u;
            }
            const auto sorted = sorted_rows<1>(
                n, [&](std::size_t i) { return Row<1>{{x[i]}, static_cast<std::uint32_t>(i)}; },
                [](const Row<1>& a, const Row<1>& b) { return a.at[0] < b.at[0]; });
            std::vector<std::uint32_t> ids;
            bool ascending = true;
            for (const Row<1>& row : sorted) {
                ascending &= row.at[0] == x[row.id] && (ids.empty() || x[ids.back()] <= row.at[0]);
                ids.push_back(row.id);
            }
            std::sort(ids.begin(), ids.end());
            for (std::size_t i = 0; i < n; ++i) ascending &= ids[i] == i;
            check(ascending, "sorted rows", n, 1, kind);
        }
    }
    // More steps than one block of a staircase: x constant, y ascending and z descending, in a shuffled order
    // of y.
    std::vector<double> wide;
    std::vector<int> order(5000);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (const int y : order)
        wide.insert(wide.end(),
                    {static_cast<double>(-(y % 7)), static_cast<double>(y), static_cast<double>(-y)});
    std::vector<std::int32_t> ranks(order.size());
    rank({wide.data(), order.size(), 3}, ranks.data());
    check(ranks == by_definition({wide.data(), order.size(), 3}), "large staircase", order.size(), 3, 9);
    // Known values: three points on a line, the middle one at distance 1 per objective.
    const std::vector<double> line{0, 2, 1, 1, 2, 0};
    const std::vector<std::int32_t> first{1, 1, 1};
    std::vector<double> distance(3);
    crowding_distance({line.data(), 3, 2}, first.data(), distance.data());
    check(std::isinf(distance[0]) && distance[1] == 2.0 && std::isinf(distance[2]), "crowding of a line", 3,
          2, 10);
    // Objectives that are the same for all add nothing, so equal points are as crowded as can be.
    const std::vector<double> equal_points{5, 5, 5, 5, 5, 5};
    crowding_distance({equal_points.data(), 3, 2}, first.data(), distance.data());
    check(distance == std::vector<double>{0, 0, 0}, "crowding of equal points", 3, 2, 11);
    std::printf(failures == 0 ? "ok\n" : "%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
