"""The CUDA kernels from Python. What needs a device is skipped without one: `make gpu-check` runs it."""

import os
import subprocess
import sys

import pytest
import torch

from asi_evolve import _native, doctor
from asi_evolve.ops import cuda, linear_attention, linear_attention_ref, linear_attention_step

HAS_DEVICE = cuda.COMPILED and torch.cuda.is_available() and bool(_native.cuda_info()["devices"])
needs_device = pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device, or a build or torch without CUDA")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def make(n, d, dtype=torch.float32, *, weight="head", state=True, batch=2, heads=3, device="cpu"):
    rng = torch.Generator().manual_seed(n + d)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    q, k, v = (normal(batch, heads, n, d).to(dtype) for _ in range(3))
    if weight is None:
        q, k = q.abs() + 0.1, k.abs() + 0.1
    w = None if weight is None else normal(*((heads,) if weight == "head" else ()), d, d) / d**0.5
    b = None if weight is None else normal(*((heads,) if weight == "head" else ()), d)
    s = (normal(batch, heads, d, d), normal(batch, heads, d).abs()) if state else (None, None)
    return [None if x is None else x.to(device) for x in (q, k, v, w, b, *s)]


def test_doctor_says_what_is_compiled_and_what_runs():
    found = doctor.examine()["native"]["cuda"]
    assert found["compiled"] == cuda.COMPILED == bool(found["architectures"])
    assert len(found["kernels"]) == (9 if cuda.COMPILED else 0)
    if not found["devices"]:
        assert found["error"]
        assert found["linear attention"].startswith("CPU: ")


def test_every_instance_fits_its_devices():
    for x in _native.cuda_kernels():
        most = 64 * 1024 if x["variant"] == "portable" else 163 * 1024
        assert max(x["shared_sums"], x["shared_forward"], x["shared_backward"]) <= most


@pytest.mark.skipif(HAS_DEVICE, reason="there is a device")
def test_without_a_device_a_call_is_an_error_that_says_so():
    with pytest.raises(RuntimeError, match="linear attention on CUDA: "):
        _native.linear_attention_cuda_step(
            "float32", 1e-6, (0, 0, 0, False), (1, 1, 1, 4, 4, 4), *[(64, (4, 4, 0, 1))] * 3, (0, 0, 0, 0), (64, 64),
            (64, (4, 4, 0, 1)), (64, 64),
        )  # fmt: skip


def test_an_unknown_variant_is_an_error(monkeypatch):
    monkeypatch.setenv("ASI_EVOLVE_CUDA_VARIANT", "fast")
    with pytest.raises(RuntimeError, match="ASI_EVOLVE_CUDA_VARIANT: 'fast'; expected 'portable'"):
        cuda._portable()


@pytest.mark.parametrize("name", ["linear_attention", "linear_attention_backward"])
def test_the_operators_are_registered_where_there_are_kernels(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"asi_evolve::{name}", "CUDA") == cuda.COMPILED


@pytest.fixture
def on_cpu(monkeypatch):
    """The Python side of the CUDA operators, with the CPU kernels where the device would be: same arguments."""
    seen = []

    def instead(cpu):
        def call(dtype, *arguments):
            *before, run, sizes = arguments[:4]
            assert run == (0, 7, run[2], False)
            seen.append(cpu)
            return cpu(dtype, *before, 1, sizes, *arguments[4:])

        return call

    def step(dtype, eps, run, sizes, q, k, v, weights, initial, out, final):
        assert run == (0, 7, run[2], False)
        seen.append(step)
        strides = [(x[1][0], x[1][1], x[1][3]) for x in (q, k, v)]
        assert out[1] == (sizes[1] * sizes[5], sizes[5], 0, 1)
        addresses = tuple(x[0] for x in (q, k, v, out))
        _native.linear_attention_step(dtype, eps, 1, sizes, addresses, *strides, weights, initial, final)

    monkeypatch.setattr(_native, "linear_attention_cuda_step", step)
    for name in ("forward", "backward"):
        monkeypatch.setattr(
            _native, f"linear_attention_cuda_{name}", instead(getattr(_native, f"linear_attention_{name}"))
        )
    monkeypatch.setattr(_native, "linear_attention_cuda_workspace", lambda *_: 100)
    monkeypatch.setattr(cuda, "_run", lambda x, w=None: (0, 7, 0 if w is None else w.data_ptr(), False))
    return seen


@pytest.mark.parametrize("weight", [None, "shared", "head"])
def test_the_operators_pass_on_what_they_get(on_cpu, weight):
    q, k, v, w, b, s, z = make(70, 32, weight=weight)
    q = q.transpose(-1, -2).contiguous().transpose(-1, -2)  # not as the kernels want it
    out, new_s, new_z = cuda.forward(q, k, v, w, b, s, z, True, 1e-6)
    want = torch.ops.asi_evolve.linear_attention(q, k, v, w, b, s, z, True, 1e-6)
    for got, expected in zip((out, new_s, new_z), want, strict=True):
        assert torch.equal(got, expected)
    gs, gz = torch.randn_like(s), torch.randn_like(z)
    arguments = (torch.randn_like(out), gs, gz, out, q, k, v, w, b, s, z, True, 1e-6)
    for got, expected in zip(
        cuda.backward(*arguments), torch.ops.asi_evolve.linear_attention_backward(*arguments), strict=True
    ):
        assert torch.equal(got, expected)
    got, (s1, z1) = cuda.step(q[:, :, 3], k[:, :, 3], v[:, :, 3], s, z, w, b, 1e-6)
    expected, (s2, z2) = linear_attention_step(q[:, :, 3], k[:, :, 3], v[:, :, 3], (s, z), w, b)
    assert torch.equal(got, expected)
    assert torch.equal(s1, s2)
    assert torch.equal(z1, z2)
    assert len(on_cpu) == 3


def test_tensors_are_aligned_for_the_kernels():
    x = torch.randn(2, 3, 8, 36)
    assert cuda._aligned(x[..., :32]) is not None
    assert cuda._aligned(x[..., :32]).data_ptr() == x.data_ptr()  # strides of 144 bytes are fine
    shifted = x.flatten()[1 : 1 + 2 * 3 * 8 * 32].view(2, 3, 8, 32)
    assert cuda._aligned(shifted).data_ptr() % 16 == 0
    assert torch.equal(cuda._aligned(shifted), shifted)
    odd = torch.randn(2, 3, 8, 33)[..., :32]
    assert all(s * 4 % 16 == 0 for s in cuda._aligned(odd).stride()[:-1])


# --- on a device ---------------------------------------------------------------------------------------------------


def close(got, want, tolerance, what):
    error = (got.double().cpu() - want.cpu()).abs().max() / max(1.0, want.abs().max().item())
    assert error <= tolerance, f"{what}: relative error {error:.2g}, allowed {tolerance:.2g}"  # false for NaN


def results(function, inputs, causal):
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in inputs]
    s = None if leaves[5] is None else (leaves[5], leaves[6])
    out, state = function(*leaves[:5], causal=causal, initial_state=s, return_state=True)
    rng = torch.Generator().manual_seed(1)
    total = sum((x.double() * torch.randn(x.shape, generator=rng).to(x.device)).sum() for x in (out, *state))
    return [out, *state, *torch.autograd.grad(total, [x for x in leaves if x is not None])]


@needs_device
@pytest.mark.parametrize("variant", ["", "portable"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("d", [32, 64, 128])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 1000])
def test_against_float64(n, causal, d, dtype, variant, monkeypatch):
    if variant and dtype != torch.float32:
        pytest.skip("the portable variant is float32")
    monkeypatch.setenv("ASI_EVOLVE_CUDA_VARIANT", variant)
    for weight, state in ((None, False), ("shared", True), ("head", False)):
        inputs = make(n, d, dtype, weight=weight, state=state, device="cuda")
        if not cuda.supports(inputs[0], inputs[2], inputs[3]):
            pytest.skip("this device has no such kernel")
        got = results(linear_attention, inputs, causal)
        want = results(linear_attention_ref, [None if x is None else x.double() for x in inputs], causal)
        for g, w in zip(got, want, strict=True):
            close(g, w, TOLERANCE[dtype], f"weight {weight}")


@needs_device
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_results_are_the_same_bits_again(dtype):
    inputs = make(3000, 64, dtype, device="cuda")
    first = results(linear_attention, inputs, True)
    for _ in range(3):
        assert all(torch.equal(x, y) for x, y in zip(first, results(linear_attention, inputs, True), strict=True))


@needs_device
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_step_on_the_device(dtype):
    q, k, v, w, b, s, z = make(1, 48, dtype, device="cuda")
    out, (s1, z1) = linear_attention_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], (s, z), w, b)
    double = [x.double() for x in (q, k, v, w, b)]
    want, (s2, z2) = linear_attention_ref(*double, initial_state=(s.double(), z.double()), return_state=True)
    close(out, want[:, :, 0], TOLERANCE[dtype], "out")
    close(s1, s2, 2e-5, "S")
    close(z1, z2, 2e-5, "z")


@needs_device
def test_another_stream_and_torch_compile():
    inputs = make(300, 64, device="cuda")
    want = linear_attention(*inputs[:5])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = linear_attention(*inputs[:5])
    stream.synchronize()
    assert torch.equal(got, want)
    compiled = torch.compile(linear_attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs[:5]), want)


@needs_device
@pytest.mark.skipif(os.environ.get("ASI_EVOLVE_SANITIZER") is None, reason="ASI_EVOLVE_SANITIZER names no program")
@pytest.mark.parametrize("check", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer(check):
    script = (
        "import torch\nfrom asi_evolve.ops import linear_attention\n"
        "for d in (32, 64, 128):\n  for t in (torch.float32, torch.bfloat16, torch.float16):\n"
        "    q, k, v = (torch.rand(1, 2, 100, d, device='cuda').to(t).requires_grad_() for _ in range(3))\n"
        "    w = torch.eye(d, device='cuda').requires_grad_()\n"
        "    out = linear_attention(q, k, v, w)\n    out.sum().backward()\ntorch.cuda.synchronize()\n"
    )
    command = [
        os.environ["ASI_EVOLVE_SANITIZER"],
        "--tool",
        check,
        "--error-exitcode",
        "9",
        "--kernel-regex",
        "kns=asi",
    ]
    done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
