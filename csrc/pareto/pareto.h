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
// typical for m = 3.
void rank(Points points, std::int32_t* ranks);

// Crowding distance within each rank (Deb et al. 2002, section III-B).
void crowding_distance(Points points, const std::int32_t* ranks, double* distance);

// Keeps exact ranks while points arrive one at a time (level update after Li et al. 2017, "Efficient
// Nondomination Level Update Method for Steady-State Evolutionary Multiobjective Optimization").
class Front {
  public:
    explicit Front(std::size_t m);

    // Returns the rank of the new point; ranks of others may grow.
    std::int32_t insert(const double* point);

    std::size_t size() const { return ranks_.size(); }
    std::size_t objectives() const { return m_; }
    const std::vector<std::int32_t>& ranks() const { return ranks_; }

  private:
    struct Level {
        std::vector<double> points;  // rows of m
        std::vector<std::int32_t> ids;
    };
    bool dominated_by(const Level& level, const double* point) const;

    std::size_t m_;
    std::vector<Level> levels_;
    std::vector<std::int32_t> ranks_;
};

}  // namespace asi::pareto
