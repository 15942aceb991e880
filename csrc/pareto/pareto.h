// Pareto ranking, crowding distance and an incremental front. Objectives are minimised; no NaN (callers
// check).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace asi::pareto {

// Rows of m objectives, one after the other.
struct Points {
    const double* data = nullptr;
    std::size_t n = 0;
    std::size_t m = 0;

    const double* operator[](std::size_t i) const { return data + i * m; }
};

// Ranks of non-dominated sorting (Deb et al. 2002, section III-A): 1 for points that nothing dominates, 2 for
// those that only rank 1 dominates, and so on. Equal points share a rank. O(n log n) for m <= 2, O(n log^2 n)
// typical for m = 3, O(n^2) with a small factor for more.
void rank(Points points, std::int32_t* ranks);

// Crowding distance within each rank (Deb et al. 2002, section III-B).
void crowding_distance(Points points, const std::int32_t* ranks, double* distance);

// Keeps exact ranks while points arrive and change one at a time (level update after Li et al. 2017,
// "Efficient Nondomination Level Update Method for Steady-State Evolutionary Multiobjective Optimization").
class Front {
  public:
    explicit Front(std::size_t m);

    // Returns the rank of the new point; ranks of others may grow.
    std::int32_t insert(const double* point);

    // Moves point `id`; returns its new rank. Ranks of others may grow or shrink.
    std::int32_t update(std::size_t id, const double* point);

    // Points of rank 1, 2, ...; empty beyond the last rank.
    const std::vector<std::int32_t>& members(std::size_t rank) const {
        static const std::vector<std::int32_t> none;
        return rank >= 1 && rank <= levels_.size() ? levels_[rank - 1].ids : none;
    }

    std::size_t size() const { return ranks_.size(); }
    std::size_t objectives() const { return m_; }
    const std::vector<std::int32_t>& ranks() const { return ranks_; }

  private:
    struct Level {
        std::vector<double> points;  // rows of m
        std::vector<std::int32_t> ids;
    };
    bool dominated_by(const Level& level, const double* point) const;
    template <class Goes>
    Level split(Level& level, const Goes& goes) const;
    void append(std::size_t at, const Level& arrivals);
    void renumber(std::size_t from);
    void place(std::int32_t id, const double* point);
    void remove(std::size_t id, std::size_t position);

    std::size_t m_;
    std::vector<Level> levels_;
    std::vector<std::int32_t> ranks_;
};

}  // namespace asi::pareto
