// Gram matrices and their gradient on the CPU: which way, and shared among threads.
#include "cpu/gram.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "src/operations.h"

namespace awase::cpu {

AWASE_EACH_ISA(GramKernels gram_kernels();)

namespace {

GramKernels kernels() { AWASE_DISPATCH(gram_kernels); }

Matrices matrices(const awase_tensor &t) {
  return {static_cast<float *>(t.data), t.strides[0], t.strides[1], t.strides[2]};
}

struct Free {
  void operator()(float *data) const { operator delete[](data, std::align_val_t(64)); }
};
using Scratch = std::unique_ptr<float[], Free>;

Scratch scratch(int64_t count) {
  return Scratch(static_cast<float *>(operator new[](size_t(count) * sizeof(float), std::align_val_t(64))));
}

struct Work {
  const GramCall &call;
  void (*kernel)(const GramCall &call, int64_t begin, int64_t end);
};

// Units of about `cost` multiplications each that make some 30 microseconds of work: what a thread is given at least.
int64_t grain(int64_t cost) { return std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(1, cost)); }

// Calls the kernel for units 0 .. count, of about `cost` multiplications each.
void share(const GramCall &call, void (*kernel)(const GramCall &, int64_t, int64_t), int64_t count, int64_t cost) {
  Work work{call, kernel};
  parallel(count, grain(cost),
           [](void *context, int64_t begin, int64_t end) {
             const Work &work = *static_cast<Work *>(context);
             work.kernel(work.call, begin, end);
           },
           &work);
}

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

GramCall prepare(const awase_tensor &f) {
  GramCall call{};
  call.f = matrices(f);
  call.channels = f.shape[1], call.length = f.shape[2];
  call.scale = float(1.0 / (double(call.channels) * double(call.length)));
  return call;
}

// Images that are worked on together, so that their scratch memory stays in the cache.
int64_t group(int64_t floats) { return std::max<int64_t>(1, (int64_t(1) << 17) / floats); }

}  // namespace

void gram(const awase_tensor &f, const awase_tensor &out) {
  const int64_t count = f.shape[0], channels = f.shape[1], length = f.shape[2];
  if (count * channels * length == 0) return;
  GramCall call = prepare(f);
  call.out = matrices(out);
  const GramKernels all = kernels();

  // Measured: dots are for long rows and for few of them.
  const bool long_rows = length >= 512 || (channels < 128 && length >= 192) || channels <= 48;
  if ((call.f.column == 1 || length == 1) && long_rows) {
    // Large blocks are kind to the cache, small ones to the threads that share out few.
    const auto blocks = [&](int64_t block) {
      const int64_t side = pieces(channels, block);
      return count * side * (side + 1) / 2;
    };
    call.block = blocks(2 * kGramBlock) < 8 * threads() ? kGramBlock : 2 * kGramBlock;
    return share(call, all.dots, blocks(call.block), call.block * call.block * length);
  }
  const int64_t panels = pieces(channels, all.panel), size = panels * all.panel * length;
  const int64_t together = std::min(count, group(size));
  const Scratch memory = scratch(together * size);
  call.scratch = memory.get();
  for (; call.first < count; call.first += together) {
    const int64_t units = std::min(together, count - call.first) * panels;
    share(call, all.pack, units, all.panel * length * 8);
    share(call, all.panels, units, all.panel * length * channels / 2);
  }
}

namespace {

struct Product {
  const GramCall &call;
  const GramKernels &all;
  std::atomic<bool> failed{false};
};

// With memory for a panel of its own. Nothing may be thrown here.
void product(void *context, int64_t begin, int64_t end) {
  Product &work = *static_cast<Product *>(context);
  try {
    const Scratch panel = scratch(work.call.channels * work.all.panel);
    work.all.product(work.call, panel.get(), begin, end);
  } catch (const std::bad_alloc &) {
    work.failed = true;
  }
}

}  // namespace

void gram_backward(const awase_tensor &f, const awase_tensor &g, const awase_tensor &out) {
  const int64_t count = f.shape[0], channels = f.shape[1], length = f.shape[2];
  if (count * channels * length == 0) return;
  GramCall call = prepare(f);
  call.g = matrices(g), call.out = matrices(out);
  const GramKernels all = kernels();
  const int64_t strips = pieces(channels, all.strip), size = strips * all.strip * channels;
  const int64_t together = std::min(count, group(size));
  const Scratch memory = scratch(together * size);
  call.scratch = memory.get();
  for (; call.first < count; call.first += together) {
    const int64_t images = std::min(together, count - call.first);
    share(call, all.symmetrize, images * strips, all.strip * channels * 8);
    Product work{call, all};
    parallel(images * pieces(length, all.panel), grain(all.panel * channels * channels), product, &work);
    if (work.failed) throw std::bad_alloc();
  }
}

}  // namespace awase::cpu
