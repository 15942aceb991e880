// Data pointers, shapes and strides in; no logic. Whoever calls keeps the tensors alive.
#include "linear_attention/linear_attention.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bindings/arguments.h"

namespace py = pybind11;
namespace la = asi::linear_attention;

namespace {

using namespace asi::bindings;
using Token = std::array<std::int64_t, 3>;

la::DType dtype(const std::string& name) {
    if (name == "float32") return la::DType::f32;
    if (name == "float64") return la::DType::f64;
    if (name == "bfloat16") return la::DType::bf16;
    throw py::value_error("dtype: '" + name + "' is not one of float32, float64, bfloat16");
}

void forward(const std::string& type, bool causal, double eps, int threads, const Sizes& sizes,
             const Tensor& q, const Tensor& k, const Tensor& v, const Weights& weights, const Pair& initial,
             const Tensor& out, const Pair& final) {
    la::ForwardParams params;
    params.dtype = dtype(type);
    params.causal = causal;
    params.eps = eps;
    params.threads = threads;
    params.shape = shape(sizes);
    params.q = view(q), params.k = view(k), params.v = view(v), params.out = view(out);
    params.phi = features(weights);
    params.initial = state(initial);
    params.final = new_state(final);
    const py::gil_scoped_release release;
    la::forward(params);
}

void backward(const std::string& type, bool causal, double eps, int threads, const Sizes& sizes,
              const Tensor& q, const Tensor& k, const Tensor& v, const Weights& weights, const Pair& initial,
              const Tensor& out, const Tensor& grad_out, const Pair& grad_final, const Tensor& grad_q,
              const Tensor& grad_k, const Tensor& grad_v, const Pair& grad_weights,
              const Pair& grad_initial) {
    la::BackwardParams params;
    params.dtype = dtype(type);
    params.causal = causal;
    params.eps = eps;
    params.threads = threads;
    params.shape = shape(sizes);
    params.q = view(q), params.k = view(k), params.v = view(v);
    params.out = view(out), params.grad_out = view(grad_out);
    params.grad_q = view(grad_q), params.grad_k = view(grad_k), params.grad_v = view(grad_v);
    params.phi = features(weights);
    params.initial = state(initial);
    params.grad_final = state(grad_final);
    params.grad_initial = new_state(grad_initial);
    params.grad_weight = pointer(grad_weights.first);
    params.grad_bias = pointer(grad_weights.second);
    const py::gil_scoped_release release;
    la::backward(params);
}

// A call has to cost less than the microseconds the kernel takes: few and flat arguments. `addresses` are
// those of q, k, v and the contiguous out; strides of (batch, heads, d).
void step(const std::string& type, double eps, int threads, const Sizes& sizes,
          const std::array<Address, 4>& addresses, const Token& q, const Token& k, const Token& v,
          const Weights& weights, const Pair& initial, const Pair& final) {
    la::StepParams params;
    params.dtype = dtype(type);
    params.eps = eps;
    params.threads = threads;
    params.shape = shape(sizes);
    params.q = {pointer(addresses[0]), {q[0], q[1], 0, q[2]}};
    params.k = {pointer(addresses[1]), {k[0], k[1], 0, k[2]}};
    params.v = {pointer(addresses[2]), {v[0], v[1], 0, v[2]}};
    params.out = {pointer(addresses[3]), {params.shape.heads * params.shape.d_v, params.shape.d_v, 0, 1}};
    params.phi = features(weights);
    params.initial = state(initial);
    params.final = new_state(final);
    const py::gil_scoped_release release;
    la::step(params);
}

}  // namespace

void bind_linear_attention(py::module_& module) {
    module.def("isa", &la::isa,
               "The instruction set in use: scalar, avx2, avx512 or avx512_bf16 (ASI_EVOLVE_ISA overrides).");
    module.def("linear_attention_forward", &forward, py::arg("dtype"), py::arg("causal"), py::arg("eps"),
               py::arg("threads"), py::arg("sizes"), py::arg("q"), py::arg("k"), py::arg("v"),
               py::arg("weights"), py::arg("initial"), py::arg("out"), py::arg("final"));
    module.def("linear_attention_backward", &backward, py::arg("dtype"), py::arg("causal"), py::arg("eps"),
               py::arg("threads"), py::arg("sizes"), py::arg("q"), py::arg("k"), py::arg("v"),
               py::arg("weights"), py::arg("initial"), py::arg("out"), py::arg("grad_out"),
               py::arg("grad_final"), py::arg("grad_q"), py::arg("grad_k"), py::arg("grad_v"),
               py::arg("grad_weights"), py::arg("grad_initial"));
    module.def("linear_attention_step", &step, py::arg("dtype"), py::arg("eps"), py::arg("threads"),
               py::arg("sizes"), py::arg("addresses"), py::arg("q_strides"), py::arg("k_strides"),
               py::arg("v_strides"), py::arg("weights"), py::arg("initial"), py::arg("final"));
}
