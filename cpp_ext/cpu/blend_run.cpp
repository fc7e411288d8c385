// Blending on the CPU: rows or channels of latents, shared among threads.
#include "cpu/blend.h"

#include <algorithm>

#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "src/operations.h"

namespace awase::cpu {

AWASE_EACH_ISA(void blend_rows(const BlendCall &call, int64_t begin, int64_t end);
               void blend_grid(const BlendCall &call, int64_t begin, int64_t end);)

namespace {

BlendView view(const awase_tensor &t) {
  return {static_cast<float *>(t.data), t.strides[0], t.strides[1], t.strides[2], t.strides[3]};
}

bool side_by_side(const BlendView &v, int64_t channels, int64_t height, int64_t width) {
  return (v.w == 1 || width == 1) && (v.h == width || height == 1) && (v.c == height * width || channels == 1);
}

void rows(void *context, int64_t begin, int64_t end) {
  AWASE_DISPATCH(blend_rows, *static_cast<BlendCall *>(context), begin, end);
}

void grid(void *context, int64_t begin, int64_t end) {
  AWASE_DISPATCH(blend_grid, *static_cast<BlendCall *>(context), begin, end);
}

// Values a thread should be given at least: some 8 microseconds of work.
constexpr int64_t kGrain = 1 << 15;

// Bytes beyond which results are written past the caches: measured, it is then up to 1.4 times as fast, and below it
// slower where several threads write, as is what reads the results next.
constexpr int64_t kCached = int64_t(12) << 20;

}  // namespace

void blend(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights, const Parts &parts,
           const awase_tensor &out) {
  const int64_t count = out.shape[0], channels = out.shape[1], height = out.shape[2], width = out.shape[3];
  const int64_t size = height * width;
  if (count * channels * size == 0) return;
  BlendCall call{};
  call.za = view(za), call.zb = view(zb), call.out = view(out);
  call.count = count, call.channels = channels, call.height = height, call.width = width;
  call.weights = static_cast<const float *>(weights.data);
  call.weights_l = weights.shape[0] == 1 ? 0 : weights.strides[0];
  call.weights_p = weights.strides[1];
  call.ends = parts.ends;
  call.whole = side_by_side(call.za, channels, height, width) && side_by_side(call.zb, channels, height, width) &&
               side_by_side(call.out, channels, height, width);
  const bool one_pair = za.shape[0] == 1 && count > 1;
  const int64_t written = count * channels * size * int64_t(sizeof(float));
  call.stream = call.whole && written > kCached && out.data != za.data && out.data != zb.data;
  if (one_pair) {
    call.za.n = call.zb.n = 0;
    parallel(channels, std::max<int64_t>(1, kGrain / (size * count)), grid, &call);
  } else {
    parallel(count * channels, std::max<int64_t>(1, kGrain / size), rows, &call);
  }
}

}  // namespace awase::cpu
