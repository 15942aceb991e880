#include <algorithm>
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
    const auto id = static_cast<std::int32_t>(ranks_.size());
    ranks_.push_back(0);
    place(id, point);
    return ranks_.back();
}

std::int32_t Front::update(std::size_t id, const double* point) {
    const Level& level = levels_[static_cast<std::size_t>(ranks_[id] - 1)];
    const auto at = static_cast<std::size_t>(
        std::find(level.ids.begin(), level.ids.end(), static_cast<std::int32_t>(id)) - level.ids.begin());
    if (!equal(level.points.data() + at * m_, point, m_)) {
        remove(id, at);
        place(static_cast<std::int32_t>(id), point);
    }
    return ranks_[id];
}

// Members of a level for which `goes` holds are taken out of it, in order.
template <class Goes>
Front::Level Front::split(Level& level, const Goes& goes) const {
    Level taken;
    std::size_t kept = 0;
    for (std::size_t k = 0; k < level.ids.size(); ++k) {
        const double* row = level.points.data() + k * m_;
        if (goes(row)) {
            taken.points.insert(taken.points.end(), row, row + m_);
            taken.ids.push_back(level.ids[k]);
            continue;
        }
        std::copy(row, row + m_, level.points.data() + kept * m_);
        level.ids[kept++] = level.ids[k];
    }
    level.points.resize(kept * m_);
    level.ids.resize(kept);
    return taken;
}

void Front::append(std::size_t at, const Level& arrivals) {
    Level& level = levels_[at];
    level.points.insert(level.points.end(), arrivals.points.begin(), arrivals.points.end());
    level.ids.insert(level.ids.end(), arrivals.ids.begin(), arrivals.ids.end());
    for (const std::int32_t member : arrivals.ids)
        ranks_[static_cast<std::size_t>(member)] = static_cast<std::int32_t>(at + 1);
}

void Front::renumber(std::size_t from) {
    for (std::size_t at = from; at < levels_.size(); ++at)
        for (const std::int32_t member : levels_[at].ids)
            ranks_[static_cast<std::size_t>(member)] = static_cast<std::int32_t>(at + 1);
}

void Front::place(std::int32_t id, const double* point) {
    // A point dominated by a level is dominated by every level before it.
    std::size_t at = 0, high = levels_.size();
    while (at < high) {
        const std::size_t middle = at + (high - at) / 2;
        if (dominated_by(levels_[middle], point)) {
            at = middle + 1;
        } else {
            high = middle;
        }
    }
    Level moving;
    moving.points.assign(point, point + m_);
    moving.ids.assign(1, id);
    for (; !moving.ids.empty(); ++at) {
        if (at == levels_.size()) levels_.emplace_back();
        // Members that an arrival dominates move one level down; the rest stay.
        Level pushed = split(levels_[at], [&](const double* row) { return dominated_by(moving, row); });
        const bool whole_level = levels_[at].ids.empty() && !pushed.ids.empty();
        append(at, moving);
        if (whole_level) {
            // The level moves as one: so does everything after it, without a comparison.
            levels_.insert(levels_.begin() + static_cast<std::ptrdiff_t>(at + 1), std::move(pushed));
            renumber(at + 1);
            break;
        }
        moving = std::move(pushed);
    }
}

void Front::remove(std::size_t id, std::size_t position) {
    auto at = static_cast<std::size_t>(ranks_[id] - 1);
    std::size_t here = 0;
    Level gone = split(levels_[at], [&](const double*) { return here++ == position; });
    for (; !gone.ids.empty(); ++at) {
        if (levels_[at].ids.empty()) {
            // Nothing is left to hold the next level down: everything after it moves up as one.
            levels_.erase(levels_.begin() + static_cast<std::ptrdiff_t>(at));
            renumber(at);
            break;
        }
        if (at + 1 == levels_.size()) break;
        // Up moves what only the gone ones held down: dominated by one of them and by nothing that stayed.
        Level rising = split(levels_[at + 1], [&](const double* row) {
            return dominated_by(gone, row) && !dominated_by(levels_[at], row);
        });
        append(at, rising);
        gone = std::move(rising);
    }
}

}  // namespace asi::pareto
