// Packing and unpacking of frames on the CPU: rows of pixels, shared among threads.
#include "cpu/frames.h"

#include <algorithm>

#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "src/operations.h"

namespace awase::cpu {

AWASE_EACH_ISA(void pack(const FramesCall &call, int64_t begin, int64_t end);
               void unpack(const FramesCall &call, int64_t begin, int64_t end);)

namespace {

FramesCall prepare(const awase_tensor &x, const awase_tensor &u) {
  FramesCall call{};
  call.floats = static_cast<float *>(x.data), call.bytes = static_cast<uint8_t *>(u.data);
  call.x = {x.strides[0], x.strides[1], x.strides[2], x.strides[3]};
  call.u = {u.strides[0], u.strides[3], u.strides[1], u.strides[2]};
  call.channels = x.shape[1], call.height = x.shape[2], call.width = x.shape[3];
  const int64_t bytes = u.shape[3];  // of a pixel
  call.alpha = bytes > call.channels;
  const bool pixels = (call.u.c == 1 || bytes == 1) && (call.u.w == bytes || call.width == 1);
  const bool same = (call.x.c == 1 || call.channels == 1) && (call.x.w == call.channels || call.width == 1);
  const bool planes = (call.x.w == 1 || call.width == 1) && call.channels <= 4;
  call.planes = !pixels ? 0 : same ? 1 : planes ? int(call.channels) : 0;
  call.values = call.channels;
  // From pixel to pixel; the stride of an axis of one pixel says nothing.
  const int64_t x_step = call.planes == 0 ? call.x.w : call.planes == 1 ? call.values : 1;
  const int64_t u_step = call.planes == 0 ? call.u.w : bytes;
  call.joined = call.x.h == call.width * x_step && call.u.h == call.width * u_step;
  return call;
}

void pack_rows(void *context, int64_t begin, int64_t end) {
  AWASE_DISPATCH(pack, *static_cast<FramesCall *>(context), begin, end);
}

void unpack_rows(void *context, int64_t begin, int64_t end) {
  AWASE_DISPATCH(unpack, *static_cast<FramesCall *>(context), begin, end);
}

void share(const awase_tensor &x, const awase_tensor &u, void (*body)(void *, int64_t, int64_t)) {
  FramesCall call = prepare(x, u);
  const int64_t rows = x.shape[0] * call.height, size = call.channels * call.width;
  if (rows * size == 0) return;
  // Some 30 microseconds of work for a thread at least.
  parallel(rows, std::max<int64_t>(1, (1 << 16) / size), body, &call);
}

}  // namespace

void pack(const awase_tensor &x, const awase_tensor &out) { share(x, out, pack_rows); }

void unpack(const awase_tensor &u, const awase_tensor &out) { share(out, u, unpack_rows); }

}  // namespace awase::cpu
