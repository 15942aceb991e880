#include <utility>

#include "pareto/dominance.h"
#include "pareto/pareto.h"

namespace asi::pareto {

Front::Front(std::size_t m) : m_(m) {}

bool Front::dominated_by(const Level& level, const double* point) const {
    for (std::size_t k = 0; k < level.ids.size(); ++k)
        if (dominates(level.points.data() + k * m_, point, m_)) return true;
    return false;
}

std::int32_t Front::insert(const double* point) {
    // A point dominated by a level is dominated by every level before it.
    std::size_t low = 0, high = levels_.size();
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (dominated_by(levels_[middle], point)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const auto rank = static_cast<std::int32_t>(low + 1);
    const auto id = static_cast<std::int32_t>(ranks_.size());
    ranks_.push_back(rank);

    Level moving;
    moving.points.assign(point, point + m_);
    moving.ids.assign(1, id);
    for (std::size_t at = low; !moving.ids.empty(); ++at) {
        if (at == levels_.size()) levels_.emplace_back();
        Level& level = levels_[at];
        // Members that an arrival dominates move one level down; the rest stay.
        Level pushed;
        std::size_t kept = 0;
        for (std::size_t k = 0; k < level.ids.size(); ++k) {
            const double* row = level.points.data() + k * m_;
            if (dominated_by(moving, row)) {
                pushed.points.insert(pushed.points.end(), row, row + m_);
                pushed.ids.push_back(level.ids[k]);
                continue;
            }
            for (std::size_t j = 0; j < m_; ++j) level.points[kept * m_ + j] = row[j];
            level.ids[kept++] = level.ids[k];
        }
        level.points.resize(kept * m_);
        level.ids.resize(kept);
        const bool whole_level = kept == 0 && !pushed.ids.empty();
        level.points.insert(level.points.end(), moving.points.begin(), moving.points.end());
        level.ids.insert(level.ids.end(), moving.ids.begin(), moving.ids.end());
        for (const std::int32_t member : moving.ids)
            ranks_[static_cast<std::size_t>(member)] = static_cast<std::int32_t>(at + 1);
        if (whole_level) {
            // The level moves as one: so does everything after it, without a comparison.
            levels_.insert(levels_.begin() + static_cast<std::ptrdiff_t>(at + 1), std::move(pushed));
            for (std::size_t later = at + 1; later < levels_.size(); ++later)
                for (const std::int32_t member : levels_[later].ids)
                    ranks_[static_cast<std::size_t>(member)] = static_cast<std::int32_t>(later + 1);
            break;
        }
        moving = std::move(pushed);
    }
    return rank;
}

}  // namespace asi::pareto
