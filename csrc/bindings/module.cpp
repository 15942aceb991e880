#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/device.h"

namespace py = pybind11;

void bind_pareto(py::module_& module);
void bind_linear_attention(py::module_& module);
void bind_linear_attention_cuda(py::module_& module);

PYBIND11_MODULE(_native, module) {
    module.doc() =
        "Native code of asi_evolve: Pareto ranking and linear attention. Use asi_evolve.pareto and "
        "asi_evolve.ops.";
    bind_pareto(module);
    bind_linear_attention(module);
    bind_linear_attention_cuda(module);

    module.def("build_info", [] {
        py::dict info;
        info["compiler"] = ASI_EVOLVE_COMPILER;
        info["cxx_standard"] = static_cast<long>(__cplusplus);
        info["cuda"] = asi::cuda::device_info().compiled;
        return info;
    });
    module.def("cuda_info", [] {
        const asi::cuda::DeviceInfo found = asi::cuda::device_info();
        py::dict info;
        info["compiled"] = found.compiled;
        info["runtime"] = found.runtime_version;
        info["driver"] = found.driver_version;
        info["error"] = found.error;
        info["devices"] = found.devices;
        return info;
    });
}
