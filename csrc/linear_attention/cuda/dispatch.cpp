// Which instance runs where.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "linear_attention/cuda/cuda.h"
#include "linear_attention/cuda/runner.h"

namespace asi::linear_attention::cuda {
namespace {

[[noreturn]] void reject(const std::string& what) {
    throw std::invalid_argument("linear attention on CUDA: " + what);
}

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    (void)cudaGetLastError();  // reported here; it must not surface at a later call
    throw std::runtime_error(std::string("linear attention on CUDA: ") + what + ": " +
                             cudaGetErrorString(status));
}

struct Device {
    int capability = 0;  // 80 for 8.0
    int multiprocessors = 0;
    int shared_bytes = 0;  // a block can have
};

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

Device device_of(int number) {
    return {10 * attribute(cudaDevAttrComputeCapabilityMajor, number) +
                attribute(cudaDevAttrComputeCapabilityMinor, number),
            attribute(cudaDevAttrMultiProcessorCount, number),
            attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, number)};
}

// Makes a device the current one, for as long as this lives.
class Current {
  public:
    explicit Current(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~Current() { (void)cudaSetDevice(before_); }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

  private:
    int before_ = 0;
};

const std::vector<Runner>& all_runners() {
    static const std::vector<Runner> all = [] {
        std::vector<Runner> found;
        for (const auto& some : {tensor_runners(), fma_runners(), portable_runners()})
            found.insert(found.end(), some.begin(), some.end());
        return found;
    }();
    return all;
}

// The first instance, in the order above, that can run; nullptr and the reason when none can.
const Runner* find(ElementType type, const Shape& s, int number, bool portable, std::string& why) {
    if (s.d_k != s.d_phi || s.d_v != s.d_phi) {
        why = "d_k " + std::to_string(s.d_k) + ", d_phi " + std::to_string(s.d_phi) + " and d_v " +
              std::to_string(s.d_v) + " differ";
        return nullptr;
    }
    const Device device = device_of(number);
    why = "no kernel for d = " + std::to_string(s.d_phi) + " on a device of compute capability " +
          std::to_string(device.capability / 10) + "." + std::to_string(device.capability % 10) + " with " +
          std::to_string(device.shared_bytes / 1024) + " KiB of shared memory a block";
    for (const Runner& runner : all_runners()) {
        const Instance& x = runner.instance;
        const bool is_portable = std::string(x.variant) == "portable";
        if (x.d != s.d_phi || std::find(x.types.begin(), x.types.end(), type) == x.types.end()) continue;
        if (portable && !is_portable) continue;
        if (device.capability < (is_portable ? 75 : 80)) continue;
        if (std::max({x.shared_sums, x.shared_forward, x.shared_backward}) > device.shared_bytes) continue;
        return &runner;
    }
    return nullptr;
}

const Runner& choose(const Shape& shape, const Launch& launch) {
    std::string why;
    const Runner* const found = find(launch.type, shape, launch.device, launch.portable, why);
    if (!found) reject(why);
    return *found;
}

// Two blocks for each multiprocessor, of four chunks at least: the states of the segments have to be written
// and read once more, and scanned.
std::int64_t segments(const Shape& shape, const Runner& runner, const Launch& launch) {
    if (launch.segments > 0) return launch.segments;
    const std::int64_t sequences = std::max<std::int64_t>(1, shape.batch * shape.heads);
    const std::int64_t chunks = (shape.length + runner.instance.chunk - 1) / runner.instance.chunk;
    const std::int64_t wanted = (2 * device_of(launch.device).multiprocessors + sequences - 1) / sequences;
    return std::max<std::int64_t>(1, std::min(wanted, chunks / 4));
}

void check_tensor(const char* name, const View& view, const Shape& shape, std::int64_t d,
                  std::int64_t element, bool input) {
    if (shape.batch * shape.heads * shape.length * d == 0) return;
    if (!view.data) reject(std::string(name) + " is a null pointer");
    if (view.stride[3] != 1)
        reject(std::string(name) + " has stride " + std::to_string(view.stride[3]) +
               " in the last dimension; must be 1");
    const std::int64_t align = input ? 16 : 8;
    bool good = reinterpret_cast<std::uintptr_t>(view.data) % align == 0;
    for (int i = 0; i < 3; ++i) good = good && view.stride[i] >= 0 && view.stride[i] * element % align == 0;
    if (!good)
        reject(std::string(name) + ": address and strides must be multiples of " + std::to_string(align) +
               " bytes");
}

void check_shape(const Shape& s, const Features& phi, const void* workspace) {
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (s.batch < 0 || s.heads < 0 || s.length < 0) reject("negative batch, heads or length");
    if (s.batch * s.heads > most / 65536 || s.length / 16 > most)
        reject("batch * heads is " + std::to_string(s.batch * s.heads) + "; allowed are " +
               std::to_string(most / 65536));
    if (!phi.weight && phi.bias) reject("a bias without a weight");
    if (!workspace) reject("no workspace");
}

std::int64_t size_of(ElementType type) { return type == ElementType::f32 ? 4 : 2; }

std::size_t workspace_bytes(const Shape& shape, bool mapped, bool backward, const Launch& launch) {
    const Runner& runner = choose(shape, launch);
    return 4 * static_cast<std::size_t>(
                   runner.workspace_floats(shape, segments(shape, runner, launch), mapped, backward));
}

}  // namespace

const std::vector<Instance>& instances() {
    static const std::vector<Instance> all = [] {
        std::vector<Instance> found;
        for (const Runner& runner : all_runners()) found.push_back(runner.instance);
        return found;
    }();
    return all;
}

std::vector<std::string> architectures() {
    std::vector<std::string> names;
    std::string name;
    for (const char c : std::string(ASI_EVOLVE_CUDA_ARCHITECTURES) + " ") {
        if (c != ' ') {
            name += c;
        } else if (!name.empty()) {
            names.push_back(name);
            name.clear();
        }
    }
    return names;
}

std::string unsupported(ElementType type, const Shape& shape, int device) {
    std::string why;
    return find(type, shape, device, false, why) ? "" : why;
}

std::size_t forward_workspace_bytes(const Shape& shape, bool mapped, const Launch& launch) {
    return workspace_bytes(shape, mapped, false, launch);
}

std::size_t backward_workspace_bytes(const Shape& shape, bool mapped, const Launch& launch) {
    return workspace_bytes(shape, mapped, true, launch);
}

void forward(const ForwardParams& params, const Launch& launch) {
    const Shape& s = params.shape;
    const std::int64_t element = size_of(launch.type);
    check_shape(s, params.phi, launch.workspace);
    check_tensor("q", params.q, s, s.d_k, element, true);
    check_tensor("k", params.k, s, s.d_k, element, true);
    check_tensor("v", params.v, s, s.d_v, element, true);
    check_tensor("out", params.out, s, s.d_v, element, false);
    const Runner& runner = choose(s, launch);
    Launch resolved = launch;
    resolved.segments = segments(s, runner, launch);
    const Current current(launch.device);
    runner.forward(params, resolved);
}

void backward(const BackwardParams& params, const Launch& launch) {
    const Shape& s = params.shape;
    const std::int64_t element = size_of(launch.type);
    check_shape(s, params.phi, launch.workspace);
    check_tensor("q", params.q, s, s.d_k, element, true);
    check_tensor("k", params.k, s, s.d_k, element, true);
    check_tensor("v", params.v, s, s.d_v, element, true);
    check_tensor("out", params.out, s, s.d_v, element, true);
    check_tensor("grad_out", params.grad_out, s, s.d_v, element, true);
    check_tensor("grad_q", params.grad_q, s, s.d_k, element, false);
    check_tensor("grad_k", params.grad_k, s, s.d_k, element, false);
    check_tensor("grad_v", params.grad_v, s, s.d_v, element, false);
    const Runner& runner = choose(s, launch);
    Launch resolved = launch;
    resolved.segments = segments(s, runner, launch);
    const Current current(launch.device);
    runner.backward(params, resolved);
}

void step(const StepParams& params, const Launch& launch) {
    const Shape& s = params.shape;
    if (s.batch < 0 || s.heads < 0 || s.d_k < 1 || s.d_phi < 1 || s.d_v < 0)
        reject("a step of a negative size");
    if (s.batch * s.heads && (!params.initial.z || !params.final.z))
        reject("a step needs a state and a place for the next one");
    if (!params.phi.weight && s.d_k != s.d_phi) reject("without a weight d_k and d_phi must be equal");
    const Current current(launch.device);
    run_step_as(params, launch);
}

}  // namespace asi::linear_attention::cuda
