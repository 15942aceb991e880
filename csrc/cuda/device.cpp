#include "cuda/device.h"

#include <cuda_runtime_api.h>

namespace asi::cuda {

DeviceInfo device_info() {
    DeviceInfo info;
    info.compiled = true;
    info.runtime_version = CUDART_VERSION;
    if (cudaDriverGetVersion(&info.driver_version) != cudaSuccess) info.driver_version = 0;
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        info.error = cudaGetErrorString(status);
        (void)cudaGetLastError();  // the error is reported here; it must not surface at a later call
        return info;
    }
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties{};
        if (cudaGetDeviceProperties(&properties, i) == cudaSuccess)
            info.devices.emplace_back(properties.name);
    }
    if (info.devices.empty()) info.error = "no device";
    return info;
}

}  // namespace asi::cuda
