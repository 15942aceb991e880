#include "pareto/pareto.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace py = pybind11;
using asi::pareto::Points;

namespace {

// Which objectives to negate: None, one bool for all, or one per objective.
std::vector<bool> directions(const py::object& maximize, std::size_t m) {
    if (maximize.is_none()) return std::vector<bool>(m, false);
    if (py::isinstance<py::bool_>(maximize)) return std::vector<bool>(m, maximize.cast<bool>());
    std::vector<bool> flags;
    for (const py::handle item : maximize) {
        const int truth = PyObject_IsTrue(item.ptr());
        if (truth < 0) throw py::error_already_set();
        flags.push_back(truth != 0);
    }
    if (flags.size() != m)
        throw py::value_error("maximize: " + std::to_string(flags.size()) + " flags for " +
                              std::to_string(m) + " objectives; give one bool, or one per objective");
    return flags;
}

[[noreturn]] void fail_nan(std::size_t row, std::size_t column) {
    throw py::value_error("F: NaN at row " + std::to_string(row) + ", column " + std::to_string(column) +
                          "; objectives must be numbers (inf and -inf are allowed)");
}

template <class T>
void gather(const py::array& F, std::size_t n, std::size_t m, const std::vector<bool>& negate,
            std::vector<double>& out) {
    const auto* base = static_cast<const char*>(F.data());
    const py::ssize_t row = F.strides(0), column = F.strides(1);
    const auto at = [](const char* from) {
        T value;  // strides of a view may be unaligned for T
        std::memcpy(&value, from, sizeof value);
        return static_cast<double>(value);
    };
    constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
    bool nan = false;
    if (column == size && row == static_cast<py::ssize_t>(m) * size) {
        for (std::size_t k = 0; k < n * m; ++k) {
            out[k] = at(base + k * sizeof(T));
            nan |= std::isnan(out[k]);
        }
    } else {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < m; ++j) {
                const double v =
                    at(base + static_cast<py::ssize_t>(i) * row + static_cast<py::ssize_t>(j) * column);
                out[i * m + j] = v;
                nan |= std::isnan(v);
            }
    }
    for (std::size_t k = 0; nan && k < n * m; ++k)
        if (std::isnan(out[k])) fail_nan(k / m, k % m);
    for (std::size_t j = 0; j < m; ++j)
        for (std::size_t i = 0; negate[j] && i < n; ++i) out[i * m + j] = -out[i * m + j];
}

struct Matrix {
    std::vector<double> data;
    std::size_t n = 0, m = 0;
    operator Points() const { return {data.data(), n, m}; }
};

// F as rows of doubles to minimise.
Matrix matrix(const py::object& object, const py::object& maximize) {
    py::array F = py::array::ensure(object);
    if (!F) {
        PyErr_Clear();
        throw py::type_error("F: not an array of numbers");
    }
    if (F.ndim() != 2)
        throw py::value_error("F: " + std::to_string(F.ndim()) +
                              " dimensions; expected 2, (points, objectives)");
    Matrix result;
    result.n = static_cast<std::size_t>(F.shape(0));
    result.m = static_cast<std::size_t>(F.shape(1));
    if (result.m == 0) throw py::value_error("F: no objectives; expected at least 1 column");
    const std::vector<bool> negate = directions(maximize, result.m);
    result.data.resize(result.n * result.m);
    if (py::isinstance<py::array_t<double>>(F)) {
        gather<double>(F, result.n, result.m, negate, result.data);
    } else if (py::isinstance<py::array_t<float>>(F)) {
        gather<float>(F, result.n, result.m, negate, result.data);
    } else {
        const char kind = F.dtype().kind();
        if (kind != 'f' && kind != 'i' && kind != 'u' && kind != 'b')
            throw py::type_error("F: dtype " + py::str(F.dtype()).cast<std::string>() +
                                 " is not real numbers");
        gather<double>(py::array_t<double, py::array::forcecast>(F), result.n, result.m, negate, result.data);
    }
    return result;
}

py::array_t<std::int32_t> rank(const py::object& F, const py::object& maximize) {
    const Matrix points = matrix(F, maximize);
    py::array_t<std::int32_t> ranks(static_cast<py::ssize_t>(points.n));
    std::int32_t* out = ranks.mutable_data();
    {
        py::gil_scoped_release release;
        asi::pareto::rank(points, out);
    }
    return ranks;
}

py::array_t<double> crowding_distance(const py::object& F, const py::object& ranks) {
    const Matrix points = matrix(F, py::none());
    std::vector<std::int32_t> groups(points.n);
    if (ranks.is_none()) {
        py::gil_scoped_release release;
        asi::pareto::rank(points, groups.data());
    } else {
        const auto given = py::array_t<std::int64_t, py::array::forcecast>::ensure(ranks);
        if (!given) {
            PyErr_Clear();
            throw py::type_error("ranks: not an array of integers");
        }
        if (given.ndim() != 1 || static_cast<std::size_t>(given.shape(0)) != points.n)
            throw py::value_error("ranks: shape does not fit F; expected (" + std::to_string(points.n) +
                                  ",)");
        for (std::size_t i = 0; i < points.n; ++i)
            groups[i] = static_cast<std::int32_t>(given.at(static_cast<py::ssize_t>(i)));
    }
    py::array_t<double> distance(static_cast<py::ssize_t>(points.n));
    double* out = distance.mutable_data();
    {
        py::gil_scoped_release release;
        asi::pareto::crowding_distance(points, groups.data(), out);
    }
    return distance;
}

class PyFront {
  public:
    PyFront(py::ssize_t objectives, const py::object& maximize)
        : front_(checked(objectives)), negate_(directions(maximize, static_cast<std::size_t>(objectives))) {}

    std::int32_t insert(const py::object& point) { return front_.insert(row(point, front_.size()).data()); }

    std::int32_t update(py::ssize_t index, const py::object& point) {
        const std::size_t at = checked_index(index);
        return front_.update(at, row(point, at).data());
    }

    std::int32_t rank(py::ssize_t index) const { return front_.ranks()[checked_index(index)]; }

    py::array_t<std::int32_t> members(py::ssize_t rank) const {
        const auto& ids = front_.members(rank < 0 ? 0 : static_cast<std::size_t>(rank));
        return py::array_t<std::int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
    }

    py::array_t<std::int32_t> ranks() const {
        return py::array_t<std::int32_t>(static_cast<py::ssize_t>(front_.size()), front_.ranks().data());
    }
    std::size_t size() const { return front_.size(); }

  private:
    static std::size_t checked(py::ssize_t objectives) {
        if (objectives < 1)
            throw py::value_error("n_objectives: " + std::to_string(objectives) + " is not at least 1");
        return static_cast<std::size_t>(objectives);
    }
    std::size_t checked_index(py::ssize_t index) const {
        if (index < 0 || static_cast<std::size_t>(index) >= front_.size())
            throw py::index_error("index: " + std::to_string(index) + " is not one of the " +
                                  std::to_string(front_.size()) + " points");
        return static_cast<std::size_t>(index);
    }
    // A point to minimise. `number` is what it is called in an error.
    std::vector<double> row(const py::object& point, std::size_t number) const {
        const auto f = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(point);
        if (!f) {
            PyErr_Clear();
            throw py::type_error("f: not an array of numbers");
        }
        const std::size_t m = front_.objectives();
        if (f.ndim() != 1 || static_cast<std::size_t>(f.shape(0)) != m)
            throw py::value_error("f: expected " + std::to_string(m) + " objectives in one dimension");
        std::vector<double> row(m);
        for (std::size_t j = 0; j < m; ++j) {
            const double v = f.data()[j];
            if (std::isnan(v)) fail_nan(number, j);
            row[j] = negate_[j] ? -v : v;
        }
        return row;
    }
    asi::pareto::Front front_;
    std::vector<bool> negate_;
};

}  // namespace

void bind_pareto(py::module_& module) {
    module.def("pareto_rank", &rank, py::arg("F"), py::arg("maximize") = py::none());
    module.def("pareto_crowding_distance", &crowding_distance, py::arg("F"), py::arg("ranks") = py::none());
    py::class_<PyFront>(module, "ParetoFront")
        .def(py::init<py::ssize_t, py::object>(), py::arg("n_objectives"), py::arg("maximize") = py::none())
        .def("insert", &PyFront::insert, py::arg("f"))
        .def("update", &PyFront::update, py::arg("index"), py::arg("f"))
        .def("rank", &PyFront::rank, py::arg("index"))
        .def("members", &PyFront::members, py::arg("rank"))
        .def_property_readonly("ranks", &PyFront::ranks)
        .def("__len__", &PyFront::size);
}
