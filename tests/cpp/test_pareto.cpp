// Pareto code against the definition: a point's rank is one more than the largest rank among those dominating
// it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "pareto/dominance.h"
#include "pareto/pareto.h"

using namespace asi::pareto;

namespace {

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
            if (kind == 4 && v < 0.2) v = std::numeric_limits<double>::infinity();
            if (kind == 4 && v > 0.2 && v < 0.3) v = -std::numeric_limits<double>::infinity();
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
    for (int kind = 0; kind < 6; ++kind) {
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
    check(ranks == by_definition({wide.data(), order.size(), 3}), "large staircase", order.size(), 3, 6);
    // Known values: three points on a line, the middle one at distance 1 per objective.
    const std::vector<double> line{0, 2, 1, 1, 2, 0};
    const std::vector<std::int32_t> first{1, 1, 1};
    std::vector<double> distance(3);
    crowding_distance({line.data(), 3, 2}, first.data(), distance.data());
    check(std::isinf(distance[0]) && distance[1] == 2.0 && std::isinf(distance[2]), "crowding of a line", 3,
          2, 7);
    // Objectives that are the same for all add nothing, so equal points are as crowded as can be.
    const std::vector<double> equal_points{5, 5, 5, 5, 5, 5};
    crowding_distance({equal_points.data(), 3, 2}, first.data(), distance.data());
    check(distance == std::vector<double>{0, 0, 0}, "crowding of equal points", 3, 2, 8);
    std::printf(failures == 0 ? "ok\n" : "%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
