// What CUDA there is on this machine. The same questions have answers in a build without CUDA.
#pragma once

#include <string>
#include <vector>

namespace asi::cuda {

struct DeviceInfo {
    bool compiled = false;    // built with a CUDA toolkit
    int runtime_version = 0;  // of the toolkit, as 13000
    int driver_version = 0;   // highest CUDA version the driver supports; 0 without a driver
    std::string error;        // why there are no devices; empty when there are
    std::vector<std::string> devices;
};

DeviceInfo device_info();

}  // namespace asi::cuda
