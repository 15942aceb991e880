"""Do the tests of the CUDA kernels bite? Each bug below is planted in a copy of the kernels, which the SIMT layer then
executes; a build of the suite has to fail. The build is the one that should find the bug: a missing barrier often
changes no result on one machine, and is a race all the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("g++")

BUILDS = {
    "plain": (["-O1"], "quick"),
    "asan": (["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSIMT_ASAN=1"], "quick"),
    "tsan": (["-O1", "-fsanitize=thread", "-DSIMT_TSAN=1"], "races"),
}

MUTANTS = {
    "missing barrier: phi is read before it is written (RAW)": ("tsan", "kernels.cuh", "barrier();  // phi is complete\n        if (p.causal) {\n            block.masked_product(phi_q, phi_k, nullptr, scores);\n            barrier();", "if (p.causal) {\n            block.masked_product(phi_q, phi_k, nullptr, scores);\n            barrier();"),
    "missing barrier: a tile is overwritten while it is read (WAR)": ("tsan", "kernels.cuh", "            block.add_columns(phi_k, nullptr, z);\n        }\n        barrier();  // before the tiles are written again", "            block.add_columns(phi_k, nullptr, z);\n        }"),
    "missing barrier: phi is overwritten by its gradient while it is read (WAR)": ("tsan", "kernels.cuh", "barrier();  // phi, state and z have been read", ""),
    "missing barrier: the scaled gradient is read before it is written (RAW)": ("tsan", "kernels.cuh", "barrier();  // the scaled gradient is complete", ""),
    "missing barrier: the normaliser is used before it is known (RAW)": ("tsan", "kernels.cuh", "barrier();  // the scales are complete, z has been read", ""),
    "off by one: a row too many is read": ("asan", "block.cuh", "return left < c ? static_cast<int>(left) : c;", "return left < c ? static_cast<int>(left) + 1 : c;"),
    "off by one: the last row is not read": ("plain", "block.cuh", "const bool there = row < n;", "const bool there = row + 1 < n;"),
    "causal mask: off by one": ("plain", "block.cuh", "j <= i ? a + more : 0.0F", "j <= i + 1 ? a + more : 0.0F"),
    "causal mask: the diagonal is left out": ("plain", "block.cuh", "j + 1 <= i ? b + more : 0.0F", "j + 1 < i ? b + more : 0.0F"),
    "divergent barrier": ("plain", "kernels.cuh", "barrier();  // the scores are complete\n        }\n        const float", "if (block.thread < 64) barrier();\n        }\n        const float"),
    "shuffle: lanes are missing from the mask": ("plain", "block.cuh", "x += shuffle_xor(kAllLanes, x, distance);", "x += shuffle_xor(0x0000FFFFU, x, distance);"),
    "shuffle: the tree begins too low": ("plain", "block.cuh", "int distance = Tr::lanes_a_row / 2; distance > 0", "int distance = Tr::lanes_a_row / 4; distance > 0"),
    "shuffle: the tree ends too early": ("plain", "step.cuh", "int distance = 16; distance > 0; distance /= 2) sum +=", "int distance = 16; distance > 1; distance /= 2) sum +="),
    "accumulation of two blocks into one place without atomics": ("tsan", "kernels.cuh", "const std::int64_t slot = (query ? 0 : static_cast<std::int64_t>(p.sequences) * p.segments) + block.slot();", "const std::int64_t slot = (query ? 0 : static_cast<std::int64_t>(p.sequences) * p.segments) + block.sequence;"),
    "shared memory: two tiles overlap": ("plain", "traits.cuh", "phi_k = carve.take(kTileBytes);", "phi_k = carve.take(kTileBytes - 64);"),
    "shared memory: too little is asked for": ("asan", "traits.cuh", "bytes = carve.bytes;\n    }", "bytes = carve.bytes - 16;\n    }"),
    "z is not initialised": ("plain", "kernels.cuh", "for (int i = block.thread; i < Tr::d; i += Tr::threads) z[i] = 0;", ""),
    "cp.async: read before it was waited for": ("plain", "block.cuh", "copy_async_wait<1>();", "copy_async_wait<2>();"),
    "cp.async: the wrong stage": ("plain", "block.cuh", "return i % 2;", "return (i + 1) % 2;"),
    "feature map: rows that are not there count": ("plain", "block.cuh", "const bool there = i < n;", "const bool there = i <= n;"),
    "segments: the scan includes its own segment": ("plain", "kernels.cuh", "            state = total;\n            total += own;", "            total += own;\n            state = total;"),
    "gradient: the slope of ELU": ("plain", "kernels.cuh", "a * (x < 1 ? x : 1.0F)", "a"),
    "ldmatrix: transposed where it should not be": ("plain", "tile.cuh", "load_matrices<false>(y, b + (n + line) * b_row + at);", "load_matrices<true>(y, b + (n + line) * b_row + at);"),
    "mma: the two halves of B exchanged": ("plain", "tile.cuh", "mma(c[i][j], x[i][0], y[0], y[1]);", "mma(c[i][j], x[i][0], y[1], y[0]);"),
    "misaligned copy": ("asan", "traits.cuh", "static constexpr int row = D + pad,", "static constexpr int row = D + pad / 2 + 1,"),
}  # fmt: skip


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The scheduler and the test are the same for all: compiled once for each build."""
    made = {}

    def compiled(build):
        if build not in made:
            folder = tmp_path_factory.mktemp(build)
            flags, _ = BUILDS[build]
            uninstrumented = [f for f in flags if not f.startswith("-f")]
            compile_to(folder / "simt.o", ROOT / "csrc" / "simt" / "simt.cpp", ROOT / "csrc", uninstrumented)
            compile_to(folder / "test.o", ROOT / "tests" / "cpp" / "simt" / "test_kernels.cpp", ROOT / "csrc", flags)
            made[build] = [folder / "simt.o", folder / "test.o"]
        return made[build]

    return compiled


def compile_to(target, source, include, flags):
    command = [COMPILER, "-std=c++20", "-fno-strict-aliasing", *flags, f"-I{include}", "-c", source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(COMPILER is None, reason="no g++")
@pytest.mark.parametrize("name", [*BUILDS, *MUTANTS])
def test_cuda(name, tmp_path, scheduler):
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    build = name
    if name in MUTANTS:
        build, file, old, new = MUTANTS[name]
        path = tmp_path / "csrc" / "linear_attention" / "cuda" / file
        pattern = r"\s+".join(map(re.escape, old.split()))  # line breaks are the formatter's
        text, count = re.subn(pattern, lambda _: new, path.read_text(), count=1)
        assert count == 1, f"{file} has no {old!r} any more: the mutant needs an update"
        path.write_text(text)
    flags, mode = BUILDS[build]
    compile_to(
        tmp_path / "kernels.o", ROOT / "tests" / "cpp" / "simt" / "kernels.cpp", tmp_path / "csrc", [*flags, "-w"]
    )
    objects = [tmp_path / "kernels.o", *scheduler(build)]
    subprocess.run([COMPILER, *flags, *objects, "-o", tmp_path / "test"], check=True, capture_output=True)
    done = subprocess.run([tmp_path / "test", mode], capture_output=True, text=True, timeout=600, check=False)
    if name in BUILDS:
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert done.returncode != 0, "survived"
        assert re.search(r"error|ERROR|WARNING: ThreadSanitizer|failed", done.stdout + done.stderr)
