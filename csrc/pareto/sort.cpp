// Non-dominated sorting by efficient non-dominated sort with binary search over fronts (ENS-BS, Zhang et al.
// 2015).
//
// Points are visited in lexicographic order, so that a point can only be dominated by an earlier one, and an
// earlier point that is distinct dominates it exactly when it is no worse in objectives 1..m-1. A point
// dominated by front r is dominated by every front before r, hence the binary search. What differs with m is
// how a front answers "does one of you cover this point in objectives 1..m-1?". Many points of more than
// three objectives have a file of their own, bitset.cpp.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "pareto/bitset.h"
#include "pareto/dominance.h"
#include "pareto/order.h"
#include "pareto/pareto.h"

namespace asi::pareto {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// m = 3: the non-dominated (y, z) pairs, y ascending and z descending, in blocks so that insertion stays
// cheap when there are very many.
class Staircase {
  public:
    explicit Staircase(const double* p) : blocks_(1, {{p[1], p[2]}}) {}

    bool covers(const double* p) {
        block_ = block_of(p[1]);
        const Block& block = blocks_[block_];
        place_ = after(block, p[1]);
        return place_ != 0 && block[place_ - 1].z <= p[2];
    }

    // Only called when nothing here covers p, after covers(p).
    void add(const double* p) {
        if (place_ != 0 && blocks_[block_][place_ - 1].y == p[1])
            --place_;  // same y, larger z: p replaces it
        // Steps with y >= p.y and z >= p.z are covered from now on; they are contiguous.
        Block& block = blocks_[block_];
        std::size_t end = place_;
        while (end < block.size() && block[end].z >= p[2]) ++end;
        if (end == block.size() && block_ + 1 < blocks_.size()) cover_blocks(p[2]);
        Block& home = blocks_[block_];
        if (end > place_) {
            home[place_] = {p[1], p[2]};
            home.erase(home.begin() + static_cast<std::ptrdiff_t>(place_ + 1),
                       home.begin() + static_cast<std::ptrdiff_t>(end));
        } else {
            home.insert(home.begin() + static_cast<std::ptrdiff_t>(place_), {p[1], p[2]});
        }
        if (home.size() > kBlock) split();
    }

  private:
    struct Step {
        double y, z;
    };
    using Block = std::vector<Step>;
    static constexpr std::size_t kBlock = 512;

    // The last block that starts at or before y; the first block when all start after.
    std::size_t block_of(double y) const {
        if (blocks_.size() == 1) return 0;
        auto it = std::upper_bound(blocks_.begin(), blocks_.end(), y,
                                   [](double value, const Block& block) { return value < block.front().y; });
        return it == blocks_.begin() ? 0 : static_cast<std::size_t>(it - blocks_.begin()) - 1;
    }
    // How many steps start at or before y.
    static std::size_t after(const Block& block, double y) {
        const auto it =
            std::upper_bound(block.begin(), block.end(), y, [](double v, const Step& s) { return v < s.y; });
        return static_cast<std::size_t>(it - block.begin());
    }
    // Of the blocks behind this one, those steps go whose z is not smaller.
    void cover_blocks(double z) {
        std::size_t next = block_ + 1;
        while (next < blocks_.size() && blocks_[next].back().z >= z) ++next;
        if (next < blocks_.size()) {
            Block& partial = blocks_[next];
            std::size_t gone = 0;
            while (partial[gone].z >= z) ++gone;
            partial.erase(partial.begin(), partial.begin() + static_cast<std::ptrdiff_t>(gone));
        }
        blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(block_ + 1),
                      blocks_.begin() + static_cast<std::ptrdiff_t>(next));
    }
    void split() {
        const auto middle = blocks_[block_].begin() + kBlock / 2;
        Block upper(middle, blocks_[block_].end());
        blocks_[block_].erase(middle, blocks_[block_].end());
        blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(block_ + 1), std::move(upper));
    }

    std::vector<Block> blocks_;
    std::size_t block_ = 0, place_ = 0;  // where covers() last looked
};

// Any m: the members, newest first, because those near in lexicographic order are the likeliest to cover.
class Members {
  public:
    Members(const double* p, std::size_t m) : m_(m), rows_(p + 1, p + m) {}
    void add(const double* p) { rows_.insert(rows_.end(), p + 1, p + m_); }
    bool covers(const double* p) const {
        const std::size_t width = m_ - 1;
        for (std::size_t end = rows_.size(); end != 0; end -= width)
            if (pareto::covers(rows_.data() + end - width, p + 1, width)) return true;
        return false;
    }

  private:
    std::size_t m_;
    std::vector<double> rows_;
};

template <class Front>
class Fronts {
  public:
    template <class... Rest>
    std::int32_t add(const double* p, Rest... rest) {
        std::size_t low = 0, high = fronts_.size();
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (fronts_[middle].covers(p)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if (low == fronts_.size()) {
            fronts_.emplace_back(p, rest...);
        } else {
            fronts_[low].add(p);
        }
        return static_cast<std::int32_t>(low + 1);
    }

  private:
    std::vector<Front> fronts_;
};

// The first K objectives of all points, and where the others are.
template <std::size_t K>
std::vector<Row<K>> lexicographic_order(Points points) {
    const auto row = [points](std::size_t i) {
        Row<K> row;
        for (std::size_t j = 0; j < K; ++j) row.at[j] = points[i][j];
        row.id = static_cast<std::uint32_t>(i);
        return row;
    };
    return sorted_rows<K>(points.n, row, [points](const Row<K>& a, const Row<K>& b) {
        for (std::size_t j = 0; j < K; ++j) {
            if (a.at[j] < b.at[j]) return true;
            if (b.at[j] < a.at[j]) return false;
        }
        return points.m > K && std::lexicographical_compare(points[a.id] + K, points[a.id] + points.m,
                                                            points[b.id] + K, points[b.id] + points.m);
    });
}

void sort_single(Points points, std::int32_t* ranks) {
    const std::vector<Row<1>> rows = lexicographic_order<1>(points);
    std::int32_t current = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i == 0 || rows[i - 1].at[0] != rows[i].at[0]) ++current;
        ranks[rows[i].id] = current;
    }
}

// m = 2: of a front, the smallest second objective is enough. It grows from front to front.
void sort_pairs(Points points, std::int32_t* ranks) {
    // So many searches at once, without a branch on what they compare: each alone waits for its last step.
    constexpr std::size_t kAtOnce = 8;
    const std::vector<Row<2>> rows = lexicographic_order<2>(points);
    std::vector<double> least;
    const auto covers = [&](std::size_t front, double y) { return least[front] <= y; };
    for (std::size_t i = 0; i < rows.size();) {
        std::size_t starts[kAtOnce + 1], count = 0;
        double y[kAtOnce] = {}, smallest = kInfinity;
        for (; i < rows.size(); ++i) {
            if (i != 0 && equal(rows[i - 1].at, rows[i].at, 2)) continue;
            if (count == kAtOnce) break;
            y[count] = rows[i].at[1];
            smallest = std::min(smallest, y[count]);
            starts[count++] = i;
        }
        starts[count] = i;
        // Long chains only ever add fronts.
        const bool beyond = !least.empty() && smallest >= least.back();
        std::size_t low[kAtOnce];
        std::fill(low, low + kAtOnce, beyond ? least.size() : 0);
        for (std::size_t left = beyond ? 0 : least.size(), half; left != 0; left -= half) {
            half = (left + 1) / 2;
            for (std::size_t k = 0; k < kAtOnce; ++k)
                low[k] += half & -static_cast<std::size_t>(covers(low[k] + half - 1, y[k]));
        }
        for (std::size_t k = 0; k < count; ++k) {
            // Those searched with it may have joined fronts since: least values have become smaller.
            std::size_t front = low[k];
            while (front != least.size() && covers(front, y[k])) ++front;
            if (front == least.size()) {
                least.push_back(y[k]);
            } else {
                least[front] = y[k];
            }
            for (std::size_t r = starts[k]; r < starts[k + 1]; ++r)
                ranks[rows[r].id] = static_cast<std::int32_t>(front + 1);
        }
    }
}

void sort_triples(Points points, std::int32_t* ranks) {
    const std::vector<Row<3>> rows = lexicographic_order<3>(points);
    Fronts<Staircase> fronts;
    std::int32_t rank = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i == 0 || !equal(rows[i - 1].at, rows[i].at, 3)) rank = fronts.add(rows[i].at);
        ranks[rows[i].id] = rank;
    }
}

void sort_many(Points points, std::int32_t* ranks) {
    constexpr std::size_t kFew = 150;  // scanning the members costs less than the bitsets' set-up
    const std::vector<Row<2>> rows = lexicographic_order<2>(points);
    std::vector<std::uint32_t> distinct;
    std::vector<std::size_t> starts;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i != 0 && equal(points[rows[i - 1].id], points[rows[i].id], points.m)) continue;
        distinct.push_back(rows[i].id);
        starts.push_back(i);
    }
    starts.push_back(rows.size());
    std::vector<std::int32_t> found;
    if (distinct.size() < kFew) {
        Fronts<Members> fronts;
        for (const std::uint32_t i : distinct) found.push_back(fronts.add(points[i], points.m));
    } else {
        found = rank_by_bitsets(points, distinct);
    }
    for (std::size_t d = 0; d < distinct.size(); ++d)
        for (std::size_t i = starts[d]; i < starts[d + 1]; ++i) ranks[rows[i].id] = found[d];
}

}  // namespace

void rank(Points points, std::int32_t* ranks) {
    if (points.n == 0) return;
    switch (points.m) {
        case 1:
            return sort_single(points, ranks);
        case 2:
            return sort_pairs(points, ranks);
        case 3:
            return sort_triples(points, ranks);
        default:
            return sort_many(points, ranks);
    }
}

}  // namespace asi::pareto
