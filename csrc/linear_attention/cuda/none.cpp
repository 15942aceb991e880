// A build without CUDA.
#include <stdexcept>

#include "linear_attention/cuda/cuda.h"

namespace asi::linear_attention::cuda {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error("linear attention on CUDA: built without CUDA"); }

}  // namespace

const std::vector<Instance>& instances() {
    static const std::vector<Instance> none;
    return none;
}
std::vector<std::string> architectures() { return {}; }
std::string unsupported(ElementType, const Shape&, int) { return "built without CUDA"; }
std::size_t forward_workspace_bytes(const Shape&, bool, const Launch&) { refuse(); }
std::size_t backward_workspace_bytes(const Shape&, bool, const Launch&) { refuse(); }
void forward(const ForwardParams&, const Launch&) { refuse(); }
void backward(const BackwardParams&, const Launch&) { refuse(); }
void step(const StepParams&, const Launch&) { refuse(); }

}  // namespace asi::linear_attention::cuda
