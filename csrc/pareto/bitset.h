#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pareto/pareto.h"

namespace asi::pareto {

// Ranks of distinct points in lexicographic order, given by their rows in `points`; any m >= 2.
//
// An earlier point dominates a later one exactly when it comes before it in the order of every other
// objective, too. So a point's dominators are where prefixes of these orders meet, as sets of bits
// (RankIntersect: Burlacu 2022, "Rank-based Non-dominated Sorting", arXiv:2203.13654). There, all n prefixes
// are made; here, only `sets` of an order, of which the next larger ones meet in all dominators and a few
// more, and those of interest are checked. A point's rank is one more than the largest of its dominators. To
// pick these out at once, each binary digit of the ranks is a set, as well (bit slices: O'Neil and Quass
// 1997, "Improved Query Performance with Variant Indexes").
//
// About n^2 (m + log of the largest rank) / 64 steps. Takes 64 MiB at most, and some bytes for each number.
std::vector<std::int32_t> rank_by_bitsets(Points points, const std::vector<std::uint32_t>& rows,
                                          std::size_t sets = 128);

}  // namespace asi::pareto
