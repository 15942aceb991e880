import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from asi_evolve import _native
from asi_evolve.ops import linear_attention, linear_attention_ref, linear_attention_step
from asi_evolve.ops.reference import linear_attention_chunked

CHUNK = 64
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def state_tolerance(dtype, weight):
    """Of S and z, which are not bfloat16. AVX512_BF16 multiplies W x in bfloat16 and rounds phi(k) to it; phi that is
    given needs no rounding."""
    if dtype == torch.bfloat16 and weight is not None and _native.isa() == "avx512_bf16":
        return 1e-2
    return 1e-11 if dtype == torch.float64 else 2e-5


def make(n, d_k, d_phi, d_v, *, batch=2, heads=3, dtype=torch.float32, weight="head", bias="head", state=True, seed=0):
    """q, k, v, weight, bias, state. Without a weight q and k are positive, as values of a feature map are."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    q, k = normal(batch, heads, n, d_k), normal(batch, heads, n, d_k)
    if weight is None:
        d_phi, q, k, bias = d_k, q.abs() + 0.1, k.abs() + 0.1, None
    w = {None: None, "shared": (d_phi, d_k), "head": (heads, d_phi, d_k)}[weight]
    b = {None: None, "shared": (d_phi,), "head": (heads, d_phi)}[bias]
    w = None if w is None else (normal(*w) / d_k**0.5).to(wide)
    b = None if b is None else normal(*b).to(wide)
    v = normal(batch, heads, n, d_v)
    s = (normal(batch, heads, d_phi, d_v).to(wide), normal(batch, heads, d_phi).abs().to(wide)) if state else None
    return q.to(dtype), k.to(dtype), v.to(dtype), w, b, s


def exact(q, k, v, w, b, s, **options):
    def double(x):
        return None if x is None else x.double()

    s = None if s is None else (double(s[0]), double(s[1]))
    return linear_attention_ref(
        double(q), double(k), double(v), double(w), double(b), initial_state=s, return_state=True, **options
    )


def close(got, want, tolerance, what=""):
    assert got.shape == want.shape, what
    if want.numel():
        error = (got.double() - want).abs().max() / max(1.0, want.abs().max().item())
        assert error <= tolerance, f"{what}: relative error {error:.2g}, allowed {tolerance:.2g}"  # false for NaN


def gradients(function, q, k, v, w, b, s, seed=7):
    """Gradients of a random linear function of output and state, by q, k, v, W, b, S, z."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in (q, k, v, w, b, *(s or (None, None)))]
    out, state = function(*leaves[:5], None if s is None else tuple(leaves[5:]))
    rng = torch.Generator().manual_seed(seed)
    total = sum((x.double() * torch.randn(x.shape, generator=rng, dtype=torch.float64)).sum() for x in (out, *state))
    return torch.autograd.grad(total, [x for x in leaves if x is not None])


def native(causal=True):
    def run(q, k, v, w, b, s):
        return linear_attention(q, k, v, w, b, causal=causal, initial_state=s, return_state=True)

    return run


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7])
@pytest.mark.parametrize("dims", [(1, 1, 1), (3, 5, 2), (32, 32, 32), (64, 64, 64), (64, 33, 17), (128, 128, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_output_state_and_gradients_against_float64(causal, n, dims, dtype):
    inputs = make(n, *dims, dtype=dtype, batch=1 if dims[0] > 64 else 2)
    out, state = native(causal)(*inputs)
    want, want_state = exact(*inputs, causal=causal)
    assert out.dtype == dtype
    close(out, want, TOLERANCE[dtype], "out")
    for got, expected, name in zip(state, want_state, "Sz", strict=True):
        assert got.dtype == inputs[5][0].dtype
        close(got, expected, state_tolerance(dtype, inputs[3]), name)
    got = gradients(native(causal), *inputs)
    expected = gradients(lambda *x: exact(*x, causal=causal), *inputs)
    for g, e, name in zip(got, expected, ["q", "k", "v", "W", "b", "S", "z"], strict=True):
        close(g, e.double(), 3 * TOLERANCE[dtype], f"grad {name}")


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (None, None),
        ("shared", None),
        ("shared", "shared"),
        ("shared", "head"),
        ("head", None),
        ("head", "shared"),
        ("head", "head"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_of_weight_and_bias(weight, bias, state, causal, dtype):
    inputs = make(90, 20, 24, 12, dtype=dtype, weight=weight, bias=bias, state=state)
    out, new = native(causal)(*inputs)
    want, want_new = exact(*inputs, causal=causal)
    close(out, want, TOLERANCE[dtype])
    for got, e in zip(new, want_new, strict=True):
        close(got, e, state_tolerance(dtype, weight))
    expected = gradients(lambda *x: exact(*x, causal=causal), *inputs)
    for g, e in zip(gradients(native(causal), *inputs), expected, strict=True):
        close(g, e.double(), 3 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weight", [None, "head"])
def test_strides_do_not_matter(dtype, weight):
    q, k, v, w, b, s = make(100, 32, 32, 32, dtype=dtype, weight=weight)
    out, state = native()(q, k, v, w, b, s)
    packed = torch.cat([q, k, v], -1).transpose(1, 2).contiguous().transpose(1, 2)  # (B, N, H, 3 d) in memory
    parts = packed.split(32, -1)
    columns = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    every_second = [torch.stack([x, -x], -1).flatten(-2)[..., ::2] for x in (q, k, v)]
    odd = [torch.nn.functional.pad(x, (1, 2))[..., 1:-2] for x in (q, k, v)]
    w2 = None if w is None else w.transpose(1, 2).contiguous().transpose(1, 2)
    s2 = tuple(x.transpose(0, 1).contiguous().transpose(0, 1) for x in s)
    for q2, k2, v2 in (parts, columns, every_second, odd):
        assert not any(x.is_contiguous() for x in (q2, k2, v2))
        got, got_state = native()(q2, k2, v2, w2, b, s2)
        assert torch.equal(got, out)
        assert all(torch.equal(x, y) for x, y in zip(got_state, state, strict=True))
    expanded = k[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(native()(q, expanded, v, w, b, s)[0], native()(q, expanded.contiguous(), v, w, b, s)[0])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_do(shape):
    q, k, v, w, b, s = make(5, 8, 8, 8, batch=shape[0], heads=shape[1], weight="shared", bias="shared")
    out, state = native()(q, k, v, w, b, s)
    assert out.shape == (*shape, 5, 8)
    assert state[0].shape == (*shape, 8, 8)
    for g, x in zip(gradients(native(), q, k, v, w, b, s), (q, k, v, w, b, *s), strict=True):
        assert g.shape == x.shape
        assert not g.isnan().any()


def test_values_of_no_width():
    q, k, v, w, b, _ = make(5, 8, 8, 0, state=False)
    out, (s, z) = native()(q, k, v, w, b, None)
    assert out.shape == (2, 3, 5, 0)
    assert s.shape == (2, 3, 8, 0)
    close(z, exact(q, k, v, w, b, None)[1][1], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("cut", [1, 63, 64, 100])
def test_a_sequence_in_two_parts(dtype, cut):
    q, k, v, w, b, s = make(150, 32, 48, 16, dtype=dtype)
    whole, last = native()(q, k, v, w, b, s)
    first, between = native()(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut], w, b, s)
    second, end = native()(q[:, :, cut:], k[:, :, cut:], v[:, :, cut:], w, b, between)
    close(torch.cat([first, second], 2), whole.double(), TOLERANCE[dtype])
    for got, want in zip(end, last, strict=True):
        close(got, want.double(), 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("weight", "dims"), [("head", (32, 48, 16)), ("shared", (5, 3, 7)), (None, (64, 64, 64)), ("head", (64, 64, 130))]
)
def test_steps_equal_the_whole(dtype, weight, dims):
    q, k, v, w, b, s = make(20, *dims, dtype=dtype, weight=weight, bias=weight)
    want, last = exact(q, k, v, w, b, s)
    before = [x.clone() for x in s]
    state, outputs = s, []
    for i in range(20):
        o, state = linear_attention_step(q[:, :, i], k[:, :, i], v[:, :, i], state, w, b)
        outputs.append(o)
    close(torch.stack(outputs, 2), want, TOLERANCE[dtype])
    for got, expected in zip(state, last, strict=True):
        close(got, expected, 2e-5)
    assert all(torch.equal(x, y) for x, y in zip(s, before, strict=True))


def test_step_is_differentiable_counted_and_compiled():
    q, k, v, w, b, s = make(1, 8, 8, 8, dtype=torch.float64)

    def step(q, k, v, w, b, s):
        out, new = linear_attention_step(q.squeeze(2), k.squeeze(2), v.squeeze(2), s, w, b)
        return out.unsqueeze(2), new

    for g, e in zip(gradients(step, q, k, v, w, b, s), gradients(exact, q, k, v, w, b, s), strict=True):
        close(g, e, 1e-10)
    with FlopCounterMode(display=False) as counter:
        step(q, k, v, w, b, s)
    assert counter.get_total_flops() == 2 * 3 * (4 * 8 * 8 + 4 * 8 + 4 * 8 * 8)
    out, new = torch.compile(step, fullgraph=True, backend="aot_eager")(q, k, v, w, b, s)
    want, want_state = step(q, k, v, w, b, s)
    close(out, want, 1e-12)
    close(new[0], want_state[0], 1e-12)


def test_the_future_does_not_matter():
    q, k, v, w, b, s = make(200, 16, 16, 16)
    out = linear_attention(q, k, v, w, b, initial_state=s)
    for cut in (1, 17, 64, 130):
        k2, v2, q2 = k.clone(), v.clone(), q.clone()
        for x in (k2, v2, q2):
            x[:, :, cut:] = x[:, :, cut:].flip(2) * 1e4
        assert torch.equal(linear_attention(q2, k2, v2, w, b, initial_state=s)[:, :, :cut], out[:, :, :cut])


def test_nan_is_not_hidden():
    q, k, v, w, b, _ = make(40, 16, 16, 16, state=False)
    q[0, 0, 5, 0] = float("nan")
    out = linear_attention(q, k, v, w, b)
    assert out[0, 0, 5].isnan().all()
    assert out.isnan().sum() == 16


def test_large_arguments_of_the_feature_map():
    q, k, v, w, b, _ = make(40, 16, 16, 16, state=False)
    w, b = w * 100, b + 10
    out = linear_attention(q, k, v, w, b)
    close(out, exact(q, k, v, w, b, None)[0], 1e-3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("weight", [None, "shared", "head"])
def test_gradcheck(causal, weight):
    q, k, v, w, b, s = make(9, 3, 4, 2, batch=1, heads=2, dtype=torch.float64, weight=weight, bias=weight)
    leaves = [x.requires_grad_() for x in (q, k, v, w, b, *s) if x is not None]

    def run(q, k, v, *rest):
        w, b = rest[:2] if weight else (None, None)
        out, state = linear_attention(q, k, v, w, b, causal=causal, initial_state=rest[-2:], return_state=True)
        return out, *state

    assert torch.autograd.gradcheck(run, leaves, fast_mode=False)


def test_only_some_gradients():
    q, k, v, w, b, s = make(70, 8, 8, 8, dtype=torch.float64)
    v.requires_grad_()
    out, (state, _) = native()(q, k, v, w, b, s)
    (through_state,) = torch.autograd.grad(state.sum(), v, retain_graph=True)
    (through_out,) = torch.autograd.grad(out.sum(), v)
    v2 = v.detach().clone().requires_grad_()
    want, (want_state, _) = exact(q, k, v2, w, b, s)
    close(through_state, torch.autograd.grad(want_state.sum(), v2, retain_graph=True)[0], 1e-11)
    close(through_out, torch.autograd.grad(want.sum(), v2)[0], 1e-11)


@pytest.mark.parametrize("weight", [None, "shared", "head"])
def test_opcheck(weight):
    q, k, v, w, b, s = make(10, 4, 4, 3, weight=weight, bias=weight)
    tensors = [None if x is None else x.requires_grad_() for x in (q, k, v, w, b, *s)]
    torch.library.opcheck(torch.ops.asi_evolve.linear_attention.default, (*tensors, True, 1e-6))
    torch.library.opcheck(torch.ops.asi_evolve.linear_attention.default, (*tensors[:5], None, None, False, 1e-6))
    detached = [None if x is None else x.detach() for x in tensors]
    torch.library.opcheck(
        torch.ops.asi_evolve.linear_attention_backward.default,
        (torch.ones(2, 3, 10, 3), None, None, torch.ones(2, 3, 10, 3), *detached, True, 1e-6),
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(dynamic):
    q, k, v, w, b, s = make(70, 8, 8, 8)

    def run(q, k, v, w, b, s):
        out, state = linear_attention(q * 2, k, v, w, b, initial_state=s, return_state=True)
        return out + 1, state

    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (70, 65):
        part = [x[:, :, :length] for x in (q, k, v)]
        for g, e in zip(gradients(compiled, *part, w, b, s), gradients(run, *part, w, b, s), strict=True):
            close(g, e.double(), 1e-5)


def test_vmap_and_per_sample_gradients():
    q, k, v, w, b, s = make(12, 4, 5, 3, batch=4, dtype=torch.float64)
    shared = w[0]

    def one(q, k, v, w, b, s):
        return linear_attention(q[None], k[None], v[None], w, b, initial_state=(s[0][None], s[1][None]))[0]

    for weight, bias in ((w, b), (shared, b[0])):
        want = linear_attention(q, k, v, weight, bias, initial_state=s)
        close(torch.func.vmap(one, (0, 0, 0, None, None, 0))(q, k, v, weight, bias, s), want, 1e-12)
        loss = torch.func.grad(lambda w, *x: one(*x[:3], w, *x[3:]).square().sum())
        got = torch.func.vmap(loss, (None, 0, 0, 0, None, 0))(weight, q, k, v, bias, s)
        for i in range(4):
            sample = (x[i] for x in (q, k, v))
            close(got[i], loss(weight, *sample, bias, (s[0][i], s[1][i])), 1e-11)
    weights = torch.stack([w, 2 * w])
    got = torch.func.vmap(lambda w: linear_attention(q, k, v, w, b))(weights)
    close(got[1], linear_attention(q, k, v, 2 * w, b), 1e-12)


def test_autocast():
    q, k, v, w, b, _ = make(70, 16, 16, 16, state=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = linear_attention(q, k.bfloat16(), v, w, b)
        o, _ = linear_attention_step(
            q[:, :, 0], k[:, :, 0].bfloat16(), v[:, :, 0], (torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16)), w, b
        )
    assert out.dtype == torch.bfloat16 == o.dtype
    assert torch.equal(out, linear_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), w, b))
    close(o, out[:, :, 0].double(), 2e-2)
    compiled = torch.compile(linear_attention, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(q, k, v, w, b), linear_attention(q, k, v, w, b))


def test_half_precision_runs_in_torch():
    q, k, v, w, b, s = make(70, 16, 16, 16)
    got, _ = linear_attention(q.half(), k.half(), v.half(), w, b, initial_state=s, return_state=True)
    assert got.dtype == torch.float16
    close(got, exact(q, k, v, w, b, s)[0], 5e-3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [0, 1, 64, 100])
def test_the_chunked_form_in_torch(causal, n):
    inputs = make(n, 16, 20, 12, dtype=torch.float64)
    out, state = linear_attention_chunked(*inputs[:5], causal=causal, initial_state=inputs[5], chunk=16)
    want, want_state = exact(*inputs, causal=causal)
    close(out, want, 1e-12)
    close(state[0], want_state[0], 1e-12)
    close(state[1], want_state[1], 1e-12)


def test_flops_are_those_of_the_recurrent_form():
    q, k, v, w, b, _ = make(11, 6, 10, 4, state=False)
    with FlopCounterMode(display=False) as counter:
        linear_attention(q, k, v, w, b)
    assert counter.get_total_flops() == 2 * 3 * 11 * (4 * 10 * 4 + 4 * 10 + 4 * 10 * 6)
    with FlopCounterMode(display=False) as counter:
        linear_attention(q, k, v)
    assert counter.get_total_flops() == 2 * 3 * 11 * (4 * 6 * 4 + 4 * 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_does_not_change_a_bit(dtype):
    inputs = make(600, 64, 64, 64, dtype=dtype, batch=2, heads=4, weight="shared", bias="shared")
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            out, state = native()(*inputs)
            results.append([out, *state, *gradients(native(), *inputs)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


SCRIPT = """
import torch
from asi_evolve import _native
from asi_evolve.ops import linear_attention, linear_attention_ref, linear_attention_step
torch.manual_seed(0)
for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-11), (torch.bfloat16, 2e-2)):
    for causal in (True, False):
        for n, d in ((0, 8), (1, 3), (130, 20), (97, 64)):
            q, k, v = (torch.randn(2, 2, n, d).to(dtype).requires_grad_() for _ in range(3))
            w = (torch.randn(2, d + 1, d) / d**0.5).requires_grad_()
            results = []
            for f, inputs in ((linear_attention, (q, k, v, w)),
                              (linear_attention_ref, tuple(x.double() for x in (q, k, v, w)))):
                out = f(*inputs, causal=causal)
                results.append((out, *torch.autograd.grad((out.double() ** 2).sum(), (q, k, v, w))))
            for x, y in zip(*results):
                if x.numel():
                    error = (x.double() - y).abs().max() / max(1, y.abs().max())
                    assert error <= 4 * tolerance, (dtype, causal, n, d, error)
print(_native.isa())
"""


def subprocess_with(isa, script=SCRIPT):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ASI_EVOLVE_ISA": isa}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


def supported():
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return ["scalar"]
    have_512 = all(f"avx512{x}" in flags for x in ("f", "dq", "bw", "vl"))
    have_bf16 = have_512 and "avx512_bf16" in flags
    return (
        ["scalar"]
        + ["avx2"] * ("avx2" in flags and "fma" in flags)
        + ["avx512"] * have_512
        + ["avx512_bf16"] * have_bf16
    )


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "avx512_bf16"])
def test_each_instruction_set(isa):
    if isa not in supported():
        pytest.skip(f"this CPU has no {isa}")
    done = subprocess_with(isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa


def test_an_unknown_instruction_set_is_an_error():
    done = subprocess_with("mmx", "from asi_evolve import _native; _native.isa()")
    assert done.returncode != 0
    assert "ASI_EVOLVE_ISA: 'mmx' is not one of" in done.stderr
    assert "scalar" in done.stderr


@pytest.mark.skipif("ASI_EVOLVE_ISA" in os.environ, reason="overridden")
def test_the_best_instruction_set_is_used():
    assert _native.isa() == supported()[-1]


GOOD = make(6, 4, 5, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": None}, TypeError, "q: NoneType"),
        ({"q": GOOD[0].long()}, TypeError, r"q: dtype torch.int64; expected one of torch.float32"),
        ({"q": GOOD[0][0]}, ValueError, r"q: 3 dimensions, shape \(3, 6, 4\); expected 4"),
        ({"k": GOOD[1][:, :, :5]}, ValueError, r"k: shape \(2, 3, 5, 4\); expected \(2, 3, 6, 4\)"),
        ({"k": GOOD[1].double()}, TypeError, "q, k, v: dtypes torch.float32, torch.float64, torch.float32"),
        ({"v": GOOD[2][:1]}, ValueError, r"v: shape \(1, 3, 6, 3\); expected \(2, 3, 6, 3\)"),
        ({"weight": GOOD[3][:2]}, ValueError, r"weight: shape \(2, 5, 4\); expected \(5, 4\) or \(3, 5, 4\)"),
        ({"weight": GOOD[3][0, 0]}, ValueError, r"weight: shape \(4,\); expected \(d_phi, 4\) or \(3, d_phi, 4\)"),
        ({"bias": GOOD[4][:, :4]}, ValueError, r"bias: shape \(3, 4\); expected \(5,\) or \(3, 5\)"),
        ({"weight": None}, ValueError, "bias: given without a weight"),
        ({"eps": -1.0}, ValueError, "eps: -1.0; expected a finite number, at least 0"),
        ({"eps": float("nan")}, ValueError, "eps: nan"),
        ({"initial_state": GOOD[5][0]}, TypeError, r"initial_state: Tensor; expected a tuple \(S, z\)"),
        ({"initial_state": GOOD[5][::-1]}, ValueError, r"S of the state: shape \(2, 3, 5\); expected \(2, 3, 5, 3\)"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = dict(zip(("q", "k", "v", "weight", "bias", "initial_state"), GOOD, strict=True)) | change
    with pytest.raises(error, match=message):
        linear_attention(**arguments)


def test_bad_arguments_of_a_step():
    q, k, v, w, b, s = GOOD
    with pytest.raises(ValueError, match=r"q: 4 dimensions, .* expected 3"):
        linear_attention_step(q, k, v, s, w, b)
    with pytest.raises(TypeError, match=r"state: NoneType; expected a tuple \(S, z\)"):
        linear_attention_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], None, w, b)
    with pytest.raises(ValueError, match="k: shape"):
        linear_attention_step(q[:, :, 0], k[:, :1, 0], v[:, :, 0], s, w, b)


def test_memory_beyond_inputs_and_outputs_does_not_grow_with_the_length():
    """Peak of the process while attending to 2^17 tokens: outputs and gradients, and next to nothing else."""
    script = """
import resource, torch
from asi_evolve.ops import linear_attention
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(n):
    q, k, v = (torch.rand(1, 2, n, 64, requires_grad=True) for _ in range(3))
    w = (torch.eye(64)).requires_grad_()
    out = linear_attention(q, k, v, w)
    torch.autograd.grad(out, (q, k, v, w), torch.ones_like(out))
run(64)
before = peak()
run(1 << 17)
print(peak() - before)
"""
    done = subprocess_with("", script)
    assert done.returncode == 0, done.stderr
    tensors = 8 * 2 * (1 << 17) * 64 * 4 / 2**20  # q, k, v, out, its gradient, three gradients
    assert float(done.stdout) <= 1.1 * tensors
