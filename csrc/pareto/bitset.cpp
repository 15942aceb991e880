#include "pareto/bitset.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "pareto/order.h"

namespace asi::pareto {
namespace {

constexpr std::size_t kWords = 8;
constexpr std::size_t kBits = 64 * kWords;

// As many positions as a line of the cache has bits. Compilers make vectors of these loops.
struct alignas(64) Line {
    std::uint64_t words[kWords] = {};

    void set(std::size_t bit) { words[bit / 64] |= std::uint64_t{1} << bit % 64; }
    // Only the bits before this one stay.
    void cut(std::size_t bit) {
        words[bit / 64] &= (std::uint64_t{1} << bit % 64) - 1;
        for (std::size_t w = bit / 64 + 1; w < kWords; ++w) words[w] = 0;
    }
    Line& operator&=(const Line& other) {
        for (std::size_t w = 0; w < kWords; ++w) words[w] &= other.words[w];
        return *this;
    }
    bool any() const {
        std::uint64_t all = 0;
        for (std::size_t w = 0; w < kWords; ++w) all |= words[w];
        return all != 0;
    }
};

class Bitsets {
  public:
    Bitsets(Points points, const std::vector<std::uint32_t>& rows, std::size_t sets)
        : n_(rows.size()), width_(points.m - 1), lines_((n_ + kBits - 1) / kBits) {
        constexpr std::size_t kMemory = std::size_t{64} << 20;
        const std::size_t most = std::max<std::size_t>(kMemory / (width_ * lines_ * sizeof(Line)), 1);
        while ((n_ >> shift_) > std::min(sets, most)) ++shift_;
        sets_ = std::max<std::size_t>((n_ - 1 + step()) >> shift_, 1);
        prefixes_.resize(width_ * sets_ * lines_);
        places_.resize(n_ * width_);
        asked_.resize(width_);
        for (std::size_t j = 0; j < width_; ++j) order(points, rows, j);
        digits_ = static_cast<std::size_t>(std::bit_width(n_));
        slices_.resize(lines_ * digits_);
        largest_.resize(lines_);
        ranks_.resize(n_);
    }

    std::vector<std::int32_t> rank() {
        std::int32_t fronts = 0;
        for (std::size_t p = 0; p < n_; ++p) {
            const std::int32_t r = largest_dominating(p, fronts) + 1;
            fronts = std::max(fronts, r);
            ranks_[p] = r;
            const std::size_t line = p / kBits;
            largest_[line] = std::max(largest_[line], r);
            for (auto left = static_cast<std::uint32_t>(r); left != 0; left &= left - 1)
                slices_[line * digits_ + static_cast<std::size_t>(std::countr_zero(left))].set(p % kBits);
        }
        return std::move(ranks_);
    }

  private:
    // Between the ends of two prefixes.
    std::size_t step() const { return std::size_t{1} << shift_; }

    // Places and prefixes of objective j + 1.
    void order(Points points, const std::vector<std::uint32_t>& rows, std::size_t j) {
        const auto row = [&](std::size_t p) {
            return Row<1>{{points[rows[p]][j + 1]}, static_cast<std::uint32_t>(p)};
        };
        // The earlier of two that are as good comes first, as it may dominate the other.
        const std::vector<Row<1>> order = sorted_rows<1>(n_, row, [](const Row<1>& a, const Row<1>& b) {
            return a.at[0] < b.at[0] || (a.at[0] == b.at[0] && a.id < b.id);
        });
        Line* prefix = prefixes_.data() + j * sets_ * lines_;
        for (std::size_t place = 0; place < n_; ++place) {
            if (place != 0 && place % step() == 0 && place / step() < sets_) {
                std::copy(prefix, prefix + lines_, prefix + lines_);
                prefix += lines_;
            }
            const std::size_t p = order[place].id;
            prefix[p / kBits].set(p % kBits);
            places_[p * width_ + j] = static_cast<std::uint32_t>(place);
        }
    }

    // Largest rank among what dominates p, 0 when nothing does; `fronts` is the largest of all so far.
    std::int32_t largest_dominating(std::size_t p, std::int32_t fronts) {
        const std::uint32_t* places = places_.data() + p * width_;
        for (std::size_t j = 0; j < width_; ++j) {
            const std::size_t set = (places[j] + step() - 1) >> shift_;
            if (set == 0) return 0;  // nothing is before p
            asked_[j] = prefixes_.data() + (j * sets_ + set - 1) * lines_;
        }
        std::int32_t best = 0;
        // Latest first: those near in lexicographic order are the likeliest to have a large rank.
        for (std::size_t line = p / kBits + 1; line-- != 0;) {
            if (largest_[line] <= best) continue;
            Line found = asked_[0][line];
            for (std::size_t j = 1; j < width_; ++j) found &= asked_[j][line];
            if (line == p / kBits) found.cut(p % kBits);  // later ones have no rank, but would be looked at
            if (!found.any()) continue;
            found &= above(line, best);
            for (std::size_t w = kWords; w-- != 0;)
                for (std::uint64_t left = found.words[w]; left != 0;) {
                    const auto bit = static_cast<std::size_t>(std::bit_width(left)) - 1;
                    left ^= std::uint64_t{1} << bit;
                    const std::size_t q = line * kBits + w * 64 + bit;
                    if (ranks_[q] <= best || !before(places_.data() + q * width_, places)) continue;
                    best = ranks_[q];
                    if (best == fronts) return best;
                }
        }
        return best;
    }

    // Positions of a line with a rank larger than r.
    Line above(std::size_t line, std::int32_t r) const {
        Line larger, same;
        for (std::uint64_t& word : same.words) word = ~std::uint64_t{0};
        const Line* slices = slices_.data() + line * digits_;
        for (int b = std::bit_width(static_cast<std::uint32_t>(largest_[line])); b-- != 0;) {
            const std::uint64_t zero = r >> b & 1 ? 0 : ~std::uint64_t{0};  // digit of r, all along
            for (std::size_t w = 0; w < kWords; ++w) {
                const std::uint64_t slice = slices[b].words[w];
                larger.words[w] |= same.words[w] & slice & zero;
                same.words[w] &= slice ^ zero;
            }
        }
        return larger;
    }

    bool before(const std::uint32_t* a, const std::uint32_t* b) const {
        for (std::size_t j = 0; j < width_; ++j)
            if (a[j] > b[j]) return false;
        return true;
    }

    std::size_t n_, width_, lines_, shift_ = 0, sets_, digits_;
    std::vector<Line> prefixes_;         // [objective][set][line]
    std::vector<std::uint32_t> places_;  // [position][objective]: where in the order of the objective
    std::vector<const Line*> asked_;     // [objective]: the prefix for one point
    std::vector<Line> slices_;           // [line][digit] of the ranks
    std::vector<std::int32_t> largest_;  // [line]: rank
    std::vector<std::int32_t> ranks_;    // [position], 0 until known
};

}  // namespace

std::vector<std::int32_t> rank_by_bitsets(Points points, const std::vector<std::uint32_t>& rows,
                                          std::size_t sets) {
    if (rows.empty()) return {};
    return Bitsets(points, rows, sets).rank();
}

}  // namespace asi::pareto
