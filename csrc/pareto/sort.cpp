// Non-dominated sorting by efficient non-dominated sort with binary search over fronts (ENS-BS, Zhang et al.
// 2015).
//
// Points are visited in lexicographic order, so that a point can only be dominated by an earlier one, and an
// earlier point that is distinct dominates it exactly when it is no worse in objectives 1..m-1. A point
// dominated by front r is dominated by every front before r, hence the binary search. What differs with m is
// how a front answers "does one of you cover this point in objectives 1..m-1?".
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "pareto/dominance.h"
#include "pareto/pareto.h"

namespace asi::pareto {
namespace {

// m = 2: the smallest second objective is enough.
class Minimum {
  public:
    explicit Minimum(std::size_t) {}
    void start(const double* p) { least_ = p[1]; }
    void add(const double* p) { least_ = std::min(least_, p[1]); }
    bool covers(const double* p) const { return least_ <= p[1]; }

  private:
    double least_ = 0;
};

// m = 3: the non-dominated (y, z) pairs, y ascending and z descending, in blocks so that insertion stays
// cheap when there are very many.
class Staircase {
  public:
    explicit Staircase(std::size_t) {}

    void start(const double* p) { blocks_.assign(1, {{p[1], p[2]}}); }

    bool covers(const double* p) const {
        const Block& block = blocks_[block_of(p[1])];
        auto it = after(block, p[1]);
        return it != block.begin() && std::prev(it)->z <= p[2];
    }

    // Only called when nothing here covers p.
    void add(const double* p) {
        std::size_t b = block_of(p[1]);
        auto at = after(blocks_[b], p[1]);
        if (at != blocks_[b].begin() && std::prev(at)->y == p[1]) --at;  // same y, larger z: p replaces it
        const std::size_t position = static_cast<std::size_t>(at - blocks_[b].begin());
        // Steps with y >= p.y and z >= p.z are covered from now on; they are contiguous.
        Block& block = blocks_[b];
        std::size_t end = position;
        while (end < block.size() && block[end].z >= p[2]) ++end;
        if (end == block.size()) {
            std::size_t next = b + 1;
            while (next < blocks_.size() && blocks_[next].back().z >= p[2]) ++next;
            if (next < blocks_.size()) {
                Block& partial = blocks_[next];
                std::size_t gone = 0;
                while (partial[gone].z >= p[2]) ++gone;
                partial.erase(partial.begin(), partial.begin() + static_cast<std::ptrdiff_t>(gone));
            }
            blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(b + 1),
                          blocks_.begin() + static_cast<std::ptrdiff_t>(next));
        }
        Block& home = blocks_[b];
        if (end > position) {
            home[position] = {p[1], p[2]};
            home.erase(home.begin() + static_cast<std::ptrdiff_t>(position + 1),
                       home.begin() + static_cast<std::ptrdiff_t>(end));
        } else {
            home.insert(home.begin() + static_cast<std::ptrdiff_t>(position), {p[1], p[2]});
        }
        if (home.size() > kBlock) split(b);
    }

  private:
    struct Step {
        double y, z;
    };
    using Block = std::vector<Step>;
    static constexpr std::size_t kBlock = 512;

    // The last block that starts at or before y; the first block when all start after.
    std::size_t block_of(double y) const {
        auto it = std::upper_bound(blocks_.begin(), blocks_.end(), y,
                                   [](double value, const Block& block) { return value < block.front().y; });
        return it == blocks_.begin() ? 0 : static_cast<std::size_t>(it - blocks_.begin()) - 1;
    }
    static Block::const_iterator after(const Block& block, double y) {
        return std::upper_bound(block.begin(), block.end(), y,
                                [](double v, const Step& s) { return v < s.y; });
    }
    static Block::iterator after(Block& block, double y) {
        return std::upper_bound(block.begin(), block.end(), y,
                                [](double v, const Step& s) { return v < s.y; });
    }
    void split(std::size_t b) {
        const auto middle = blocks_[b].begin() + kBlock / 2;
        Block upper(middle, blocks_[b].end());
        blocks_[b].erase(middle, blocks_[b].end());
        blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(b + 1), std::move(upper));
    }

    std::vector<Block> blocks_;
};

// Any m: the members, newest first, because those near in lexicographic order are the likeliest to cover.
class Members {
  public:
    explicit Members(std::size_t m) : m_(m) {}
    void start(const double* p) { add(p); }
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

template <class Cover>
void sort_with(Points points, const std::vector<std::size_t>& order, std::int32_t* ranks) {
    std::vector<Cover> fronts;
    for (std::size_t position = 0; position < order.size(); ++position) {
        const std::size_t i = order[position];
        const double* p = points[i];
        if (position != 0 && equal(points[order[position - 1]], p, points.m)) {
            ranks[i] = ranks[order[position - 1]];
            continue;
        }
        std::size_t low = 0, high = fronts.size();
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (fronts[middle].covers(p)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if (low == fronts.size()) {
            fronts.emplace_back(points.m);
            fronts.back().start(p);
        } else {
            fronts[low].add(p);
        }
        ranks[i] = static_cast<std::int32_t>(low + 1);
    }
}

void sort_single(Points points, const std::vector<std::size_t>& order, std::int32_t* ranks) {
    std::int32_t current = 0;
    for (std::size_t position = 0; position < order.size(); ++position) {
        if (position == 0 || points[order[position]][0] != points[order[position - 1]][0]) ++current;
        ranks[order[position]] = current;
    }
}

struct Keyed {
    std::uint64_t key;
    std::size_t id;
};

// Bits that are ordered as the numbers are; both zeros are one.
std::uint64_t ordered_bits(double x) {
    std::uint64_t bits;
    x += 0.0;
    std::memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | std::uint64_t{1} << 63;
}

// By the first objective, least significant digit first (Knuth, volume 3, section 5.2.5): comparing floats
// through an index costs more than the rest of the sort. Digits that all keys share are passed over.
void radix_sort(std::vector<Keyed>& rows) {
    constexpr int kBits = 11;
    constexpr std::size_t kDigits = std::size_t{1} << kBits;
    std::vector<Keyed> other(rows.size());
    for (int shift = 0; shift < 64; shift += kBits) {
        std::size_t starts[kDigits + 1] = {};
        for (const Keyed& row : rows) ++starts[(row.key >> shift & (kDigits - 1)) + 1];
        if (starts[(rows[0].key >> shift & (kDigits - 1)) + 1] == rows.size()) continue;
        for (std::size_t d = 0; d < kDigits; ++d) starts[d + 1] += starts[d];
        for (const Keyed& row : rows) other[starts[row.key >> shift & (kDigits - 1)]++] = row;
        rows.swap(other);
    }
}

// Indices of the points in lexicographic order.
std::vector<std::size_t> lexicographic_order(Points points) {
    constexpr std::size_t kFew = 256;  // the digits' counters cost more than comparing so few
    std::vector<Keyed> rows(points.n);
    for (std::size_t i = 0; i < points.n; ++i) rows[i] = {ordered_bits(points[i][0]), i};
    const auto by_rest = [&](const Keyed& a, const Keyed& b) {
        return std::lexicographical_compare(points[a.id] + 1, points[a.id] + points.m, points[b.id] + 1,
                                            points[b.id] + points.m);
    };
    if (points.n < kFew) {
        std::sort(rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
            return a.key != b.key ? a.key < b.key : by_rest(a, b);
        });
    } else {
        radix_sort(rows);
        for (std::size_t start = 0; start < points.n;) {
            std::size_t end = start + 1;
            while (end < points.n && rows[end].key == rows[start].key) ++end;
            if (end - start > 1)
                std::sort(rows.begin() + static_cast<std::ptrdiff_t>(start),
                          rows.begin() + static_cast<std::ptrdiff_t>(end), by_rest);
            start = end;
        }
    }
    std::vector<std::size_t> order(points.n);
    for (std::size_t i = 0; i < points.n; ++i) order[i] = rows[i].id;
    return order;
}

}  // namespace

void rank(Points points, std::int32_t* ranks) {
    if (points.n == 0) return;
    const std::vector<std::size_t> order = lexicographic_order(points);
    switch (points.m) {
        case 1:
            return sort_single(points, order, ranks);
        case 2:
            return sort_with<Minimum>(points, order, ranks);
        case 3:
            return sort_with<Staircase>(points, order, ranks);
        default:
            return sort_with<Members>(points, order, ranks);
    }
}

}  // namespace asi::pareto
