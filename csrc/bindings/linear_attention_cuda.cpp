// Device pointers, shapes, strides and a stream in; no logic. Whoever calls keeps the tensors alive.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "bindings/arguments.h"
#include "linear_attention/cuda/cuda.h"

namespace py = pybind11;
namespace la = asi::linear_attention;
namespace cuda = asi::linear_attention::cuda;

namespace {

using namespace asi::bindings;

cuda::ElementType element_type(const std::string& name) {
    if (name == "float32") return cuda::ElementType::f32;
    if (name == "bfloat16") return cuda::ElementType::bf16;
    if (name == "float16") return cuda::ElementType::f16;
    throw py::value_error("dtype: '" + name + "' is not one of float32, bfloat16, float16");
}

const char* name_of(cuda::ElementType type) {
    return type == cuda::ElementType::f32    ? "float32"
           : type == cuda::ElementType::bf16 ? "bfloat16"
                                             : "float16";
}

using Run = std::tuple<int, Address, Address, bool>;  // device, stream, workspace, portable variant only

cuda::Launch launch(const std::string& type, const Run& run) {
    cuda::Launch launch;
    launch.type = element_type(type);
    launch.device = std::get<0>(run);
    launch.stream = pointer(std::get<1>(run)), launch.workspace = pointer(std::get<2>(run));
    launch.portable = std::get<3>(run);
    return launch;
}

void forward(const std::string& type, bool causal, double eps, const Run& run, const Sizes& sizes,
             const Tensor& q, const Tensor& k, const Tensor& v, const Weights& weights, const Pair& initial,
             const Tensor& out, const Pair& final) {
    la::ForwardParams params;
    params.causal = causal;
    params.eps = eps;
    params.shape = shape(sizes);
    params.q = view(q), params.k = view(k), params.v = view(v), params.out = view(out);
    params.phi = features(weights);
    params.initial = state(initial);
    params.final = new_state(final);
    const cuda::Launch how = launch(type, run);
    const py::gil_scoped_release release;
    cuda::forward(params, how);
}

void backward(const std::string& type, bool causal, double eps, const Run& run, const Sizes& sizes,
              const Tensor& q, const Tensor& k, const Tensor& v, const Weights& weights, const Pair& initial,
              const Tensor& out, const Tensor& grad_out, const Pair& grad_final, const Tensor& grad_q,
              const Tensor& grad_k, const Tensor& grad_v, const Pair& grad_weights,
              const Pair& grad_initial) {
    la::BackwardParams params;
    params.causal = causal;
    params.eps = eps;
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
    const cuda::Launch how = launch(type, run);
    const py::gil_scoped_release release;
    cuda::backward(params, how);
}

void step(const std::string& type, double eps, const Run& run, const Sizes& sizes, const Tensor& q,
          const Tensor& k, const Tensor& v, const Weights& weights, const Pair& initial, const Tensor& out,
          const Pair& final) {
    la::StepParams params;
    params.eps = eps;
    params.shape = shape(sizes);
    params.q = view(q), params.k = view(k), params.v = view(v), params.out = view(out);
    params.phi = features(weights);
    params.initial = state(initial);
    params.final = new_state(final);
    const cuda::Launch how = launch(type, run);
    const py::gil_scoped_release release;
    cuda::step(params, how);
}

std::size_t workspace(const std::string& type, const Run& run, const Sizes& sizes, bool mapped,
                      bool of_backward) {
    const cuda::Launch how = launch(type, run);
    return of_backward ? cuda::backward_workspace_bytes(shape(sizes), mapped, how)
                       : cuda::forward_workspace_bytes(shape(sizes), mapped, how);
}

py::list kernels() {
    py::list all;
    for (const cuda::Instance& x : cuda::instances()) {
        py::list types;
        for (const auto type : x.types) types.append(name_of(type));
        py::dict entry;
        entry["variant"] = x.variant;
        entry["dtypes"] = types;
        entry["d"] = x.d;
        entry["chunk"] = x.chunk;
        entry["threads"] = x.threads;
        entry["stages"] = x.stages;
        entry["shared_sums"] = x.shared_sums;
        entry["shared_forward"] = x.shared_forward;
        entry["shared_backward"] = x.shared_backward;
        all.append(entry);
    }
    return all;
}

}  // namespace

void bind_linear_attention_cuda(py::module_& module) {
    module.def("cuda_kernels", &kernels,
               "The instances of the CUDA kernels in this build; none without CUDA.");
    module.def("cuda_architectures", &cuda::architectures, "What they are compiled for.");
    module.def(
        "linear_attention_cuda_unsupported",
        [](const std::string& type, const Sizes& sizes, int device) {
            return cuda::unsupported(element_type(type), shape(sizes), device);
        },
        py::arg("dtype"), py::arg("sizes"), py::arg("device"),
        "Why no kernel can run this; empty when one can.");
    module.def("linear_attention_cuda_workspace", &workspace, py::arg("dtype"), py::arg("run"),
               py::arg("sizes"), py::arg("mapped"), py::arg("backward"),
               "Bytes of device memory a call needs.");
    module.def("linear_attention_cuda_forward", &forward, py::arg("dtype"), py::arg("causal"), py::arg("eps"),
               py::arg("run"), py::arg("sizes"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("weights"),
               py::arg("initial"), py::arg("out"), py::arg("final"));
    module.def("linear_attention_cuda_backward", &backward, py::arg("dtype"), py::arg("causal"),
               py::arg("eps"), py::arg("run"), py::arg("sizes"), py::arg("q"), py::arg("k"), py::arg("v"),
               py::arg("weights"), py::arg("initial"), py::arg("out"), py::arg("grad_out"),
               py::arg("grad_final"), py::arg("grad_q"), py::arg("grad_k"), py::arg("grad_v"),
               py::arg("grad_weights"), py::arg("grad_initial"));
    module.def("linear_attention_cuda_step", &step, py::arg("dtype"), py::arg("eps"), py::arg("run"),
               py::arg("sizes"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("weights"),
               py::arg("initial"), py::arg("out"), py::arg("final"));
}
