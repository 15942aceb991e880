#pragma once

#include <cstddef>

namespace asi::pareto {

// a is at least as good as b everywhere.
inline bool covers(const double* a, const double* b, std::size_t m) {
    for (std::size_t j = 0; j < m; ++j)
        if (a[j] > b[j]) return false;
    return true;
}

// a is at least as good as b everywhere and better somewhere.
inline bool dominates(const double* a, const double* b, std::size_t m) {
    bool better = false;
    for (std::size_t j = 0; j < m; ++j) {
        if (a[j] > b[j]) return false;
        better |= a[j] < b[j];
    }
    return better;
}

inline bool equal(const double* a, const double* b, std::size_t m) {
    for (std::size_t j = 0; j < m; ++j)
        if (a[j] != b[j]) return false;
    return true;
}

}  // namespace asi::pareto
