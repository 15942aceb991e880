#include "cuda/device.h"

namespace asi::cuda {

DeviceInfo device_info() {
    DeviceInfo info;
    info.error = "built without CUDA";
    return info;
}

}  // namespace asi::cuda
