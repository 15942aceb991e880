// Linear attention by plain float64 loops over the definition, with gradients: what kernels are compared
// with.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "linear_attention/linear_attention.h"

namespace reference {

namespace la = asi::linear_attention;

struct Case {
    la::Shape shape;
    bool causal, mapped, per_head, state;
};

inline double phi(double x) { return x > 0 ? x + 1 : std::exp(x); }

inline std::vector<double> random(std::int64_t n, std::mt19937& rng, double low, double high) {
    std::uniform_real_distribution<double> uniform(low, high);
    std::vector<double> x(static_cast<std::size_t>(n));
    for (double& value : x) value = static_cast<float>(uniform(rng));
    return x;
}

// Inputs and outputs of one problem; gradients are those of sum(out * g) + sum(S * gs) + sum(z * gz).
struct Problem {
    Case c;
    std::vector<double> q, k, v, w, b, s0, z0, g, gs, gz;
    std::vector<double> out, s1, z1, dq, dk, dv, dw, db, ds0, dz0;
};

inline std::vector<double> features(const Problem& p, const std::vector<double>& x, std::int64_t token,
                                    std::int64_t head) {
    const la::Shape& s = p.c.shape;
    std::vector<double> f(static_cast<std::size_t>(s.d_phi));
    for (std::int64_t r = 0; r < s.d_phi; ++r) {
        if (!p.c.mapped) {
            f[r] = x[token * s.d_k + r];
            continue;
        }
        const std::int64_t at = (p.c.per_head ? head * s.d_phi : 0) + r;
        double u = p.b[at];
        for (std::int64_t d = 0; d < s.d_k; ++d) u += p.w[at * s.d_k + d] * x[token * s.d_k + d];
        f[r] = phi(u);
    }
    return f;
}

// Gradients by the quadratic form of the definition.
inline void solve(Problem& p, double eps) {
    const la::Shape& s = p.c.shape;
    const std::int64_t n = s.length, dp = s.d_phi, dv = s.d_v;
    p.out.assign(p.v.size(), 0);
    p.dq.assign(p.q.size(), 0), p.dk.assign(p.k.size(), 0), p.dv.assign(p.v.size(), 0);
    p.dw.assign(s.batch * s.heads * dp * s.d_k, 0), p.db.assign(s.batch * s.heads * dp, 0);
    p.s1 = p.s0, p.z1 = p.z0, p.ds0 = p.gs, p.dz0 = p.gz;
    for (std::int64_t bh = 0; bh < s.batch * s.heads; ++bh) {
        const std::int64_t head = bh % s.heads;
        double *s0 = &p.s0[bh * dp * dv], *z0 = &p.z0[bh * dp];
        std::vector<std::vector<double>> fq, fk, gq(n, std::vector<double>(dp)),
            gk(n, std::vector<double>(dp));
        for (std::int64_t i = 0; i < n; ++i) {
            fq.push_back(features(p, p.q, bh * n + i, head));
            fk.push_back(features(p, p.k, bh * n + i, head));
        }
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t r = 0; r < dp; ++r) {
                p.z1[bh * dp + r] += fk[j][r];
                gk[j][r] += p.gz[bh * dp + r];
                for (std::int64_t e = 0; e < dv; ++e) {
                    p.s1[(bh * dp + r) * dv + e] += fk[j][r] * p.v[(bh * n + j) * dv + e];
                    gk[j][r] += p.gs[(bh * dp + r) * dv + e] * p.v[(bh * n + j) * dv + e];
                    p.dv[(bh * n + j) * dv + e] += p.gs[(bh * dp + r) * dv + e] * fk[j][r];
                }
            }
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t seen = p.c.causal ? i + 1 : n;
            std::vector<double> a(seen), number(dv);
            double den = eps;
            for (std::int64_t r = 0; r < dp; ++r) {
                den += fq[i][r] * z0[r];
                for (std::int64_t e = 0; e < dv; ++e) number[e] += fq[i][r] * s0[r * dv + e];
            }
            for (std::int64_t j = 0; j < seen; ++j) {
                for (std::int64_t r = 0; r < dp; ++r) a[j] += fq[i][r] * fk[j][r];
                den += a[j];
                for (std::int64_t e = 0; e < dv; ++e) number[e] += a[j] * p.v[(bh * n + j) * dv + e];
            }
            const double* g = &p.g[(bh * n + i) * dv];
            double gd = 0;
            for (std::int64_t e = 0; e < dv; ++e) {
                p.out[(bh * n + i) * dv + e] = number[e] / den;
                gd -= g[e] * number[e] / den / den;
            }
            for (std::int64_t j = 0; j < seen; ++j) {
                double ga = gd;
                for (std::int64_t e = 0; e < dv; ++e) {
                    ga += g[e] / den * p.v[(bh * n + j) * dv + e];
                    p.dv[(bh * n + j) * dv + e] += a[j] * g[e] / den;
                }
                for (std::int64_t r = 0; r < dp; ++r) {
                    gq[i][r] += ga * fk[j][r];
                    gk[j][r] += ga * fq[i][r];
                }
            }
            for (std::int64_t r = 0; r < dp; ++r) {
                gq[i][r] += gd * z0[r];
                p.dz0[bh * dp + r] += gd * fq[i][r];
                for (std::int64_t e = 0; e < dv; ++e) {
                    gq[i][r] += g[e] / den * s0[r * dv + e];
                    p.ds0[(bh * dp + r) * dv + e] += g[e] / den * fq[i][r];
                }
            }
        }
        for (std::int64_t i = 0; i < n; ++i)
            for (int which = 0; which < 2; ++which) {
                const auto& f = which ? fk[i] : fq[i];
                const auto& gf = which ? gk[i] : gq[i];
                const auto& x = which ? p.k : p.q;
                auto& dx = which ? p.dk : p.dq;
                for (std::int64_t r = 0; r < dp; ++r) {
                    if (!p.c.mapped) {
                        dx[(bh * n + i) * s.d_k + r] += gf[r];
                        continue;
                    }
                    const double u = gf[r] * std::min(f[r], 1.0);
                    p.db[bh * dp + r] += u;
                    for (std::int64_t d = 0; d < s.d_k; ++d) {
                        const std::int64_t at = (p.c.per_head ? head * dp : 0) + r;
                        dx[(bh * n + i) * s.d_k + d] += u * p.w[at * s.d_k + d];
                        p.dw[(bh * dp + r) * s.d_k + d] += u * x[(bh * n + i) * s.d_k + d];
                    }
                }
            }
    }
}

}  // namespace reference
