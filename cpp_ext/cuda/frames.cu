// Frames between float NCHW and uint8 NHWC. Where a channel's pixels lie side by side, a block carries 1024 pixels
// through shared memory, so that both sides move whole words of neighbouring threads; else a thread carries one value.
#include "cuda/launch.h"

namespace awase::cuda {
namespace {

constexpr int kThreads = 256;

AWASE_BODY uint8_t packed(float x) {
  // fmax takes the other one of a not-a-number, which so lands on the lower bound.
  return uint8_t(int(rintf((fminf(fmaxf(x, -1.0f), 1.0f) + 1.0f) * 127.5f)));
}
AWASE_BODY float unpacked(uint8_t u) { return float(u) / 127.5f - 1.0f; }

// ---- pieces of 1024 pixels ----

constexpr int kMostBytes = 4;  // of a pixel

// Frames whose channels are contiguous on the float side and whose pixels are contiguous on the byte side. Four pixels
// of a channel begin on 16 bytes (float16: 8), and the bytes of an image on 4. A pixel has as many bytes as channels,
// or one more: alpha.
struct Pieces {
  static constexpr int kPixels = 4 * kThreads;
  struct Bytes {
    alignas(16) uint8_t at[kPixels * kMostBytes];
  };

  int64_t count, pixels;            // images, pixels of each
  int channels, values;              // of the floats; bytes of a pixel
  int64_t float_n, float_c, byte_n;  // strides

  AWASE_BODY int64_t each() const { return divide_up(pixels, kPixels); }
  AWASE_BODY int64_t blocks() const { return count * each(); }
  AWASE_BODY int64_t image(int64_t block) const { return block / each(); }
  AWASE_BODY int64_t first(int64_t block) const { return block % each() * kPixels; }
  AWASE_BODY int bytes(int64_t block) const {
    return int(least<int64_t>(kPixels, pixels - first(block))) * values;
  }
};

template <class In>
struct PackPieces {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  using Shared = Pieces::Bytes;
  struct Registers {};

  Pieces pieces;
  const In *x;
  uint8_t *out;

  AWASE_BODY int phases(int64_t) const { return 2; }
  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &) const {
    const int64_t image = pieces.image(block), first = pieces.first(block);
    if (p == 0) {
      const int64_t pixel = first + 4 * thread;
      if (pixel >= pieces.pixels) return;
      for (int c = 0; c < pieces.channels; ++c) {
        const In *from = x + image * pieces.float_n + c * pieces.float_c + pixel;
        const Pack<In, 4> four = *reinterpret_cast<const Pack<In, 4> *>(from);
        AWASE_UNROLL
        for (int k = 0; k < 4; ++k) shared.at[(4 * thread + k) * pieces.values + c] = packed(to_float(four.at[k]));
      }
      if (pieces.values > pieces.channels) {
        AWASE_UNROLL
        for (int k = 0; k < 4; ++k) shared.at[(4 * thread + k) * pieces.values + pieces.channels] = 255;
      }
      return;
    }
    uint8_t *to = out + image * pieces.byte_n + first * pieces.values;
    for (int word = thread; word < pieces.bytes(block) / 4; word += kThreads)
      reinterpret_cast<uint32_t *>(to)[word] = reinterpret_cast<const uint32_t *>(shared.at)[word];
  }
};

struct UnpackPieces {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  using Shared = Pieces::Bytes;
  struct Registers {};

  Pieces pieces;
  const uint8_t *u;
  float *out;

  AWASE_BODY int phases(int64_t) const { return 2; }
  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &) const {
    const int64_t image = pieces.image(block), first = pieces.first(block);
    if (p == 0) {
      const uint8_t *from = u + image * pieces.byte_n + first * pieces.values;
      for (int word = thread; word < pieces.bytes(block) / 4; word += kThreads)
        reinterpret_cast<uint32_t *>(shared.at)[word] = reinterpret_cast<const uint32_t *>(from)[word];
      return;
    }
    const int64_t pixel = first + 4 * thread;
    if (pixel >= pieces.pixels) return;
    for (int c = 0; c < pieces.channels; ++c) {
      Pack<float, 4> four;
      AWASE_UNROLL
      for (int k = 0; k < 4; ++k) four.at[k] = unpacked(shared.at[(4 * thread + k) * pieces.values + c]);
      *reinterpret_cast<Pack<float, 4> *>(out + image * pieces.float_n + c * pieces.float_c + pixel) = four;
    }
  }
};

// ---- any strides ----

struct View {
  int64_t n, c, h, w;
};

// A value for each thread, in the order of the result.
struct Values {
  int64_t count, channels, height, width;
  int64_t values;  // bytes of a pixel
  View floats, bytes;

  AWASE_BODY int64_t size() const { return count * values * height * width; }
  AWASE_BODY int64_t blocks() const { return divide_up(size(), kThreads); }
  static AWASE_BODY int64_t at(const View &view, int64_t n, int64_t c, int64_t h, int64_t w) {
    return n * view.n + c * view.c + h * view.h + w * view.w;
  }
};

template <class In>
struct PackValues {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  struct Shared {};
  struct Registers {};

  Values values;
  const In *x;
  uint8_t *out;

  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t block, int thread, Shared &, Registers &) const {
    int64_t index = block * kThreads + thread;
    if (index >= values.size()) return;
    const int64_t c = index % values.values, w = (index /= values.values) % values.width;
    const int64_t h = (index /= values.width) % values.height, n = index / values.height;
    const bool alpha = c >= values.channels;
    out[Values::at(values.bytes, n, c, h, w)] =
        alpha ? uint8_t(255) : packed(to_float(x[Values::at(values.floats, n, c, h, w)]));
  }
};

struct UnpackValues {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  struct Shared {};
  struct Registers {};

  Values values;
  const uint8_t *u;
  float *out;

  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t block, int thread, Shared &, Registers &) const {
    int64_t index = block * kThreads + thread;
    if (index >= values.size()) return;
    const int64_t w = index % values.width, h = (index /= values.width) % values.height;
    const int64_t c = (index /= values.height) % values.channels, n = index / values.channels;
    out[Values::at(values.floats, n, c, h, w)] = unpacked(u[Values::at(values.bytes, n, c, h, w)]);
  }
};

// ---- which of the two ----

// floats [N, C, H, W], bytes [N, H, W, C or, with alpha, C + 1].
bool fits(const awase_tensor &floats, const awase_tensor &bytes, Pieces &pieces) {
  const int64_t n = floats.shape[0], c = floats.shape[1], h = floats.shape[2], w = floats.shape[3];
  const int64_t values = bytes.shape[3], *f = floats.strides, *b = bytes.strides;
  pieces = {n, h * w, int(least<int64_t>(c, kMostBytes)), int(least<int64_t>(values, kMostBytes)), f[0], f[1], b[0]};
  const bool rows = (w == 1 || f[3] == 1) && (h == 1 || f[2] == w);
  const bool pixels =
      (values == 1 || b[3] == 1) && (w == 1 || b[2] == values) && (h == 1 || b[1] == w * values);
  const size_t vector = floats.dtype == AWASE_FLOAT16 ? 8 : 16;
  return values <= kMostBytes && h * w % 4 == 0 && rows && pixels && (c == 1 || f[1] % 4 == 0) &&
         (n == 1 || (f[0] % 4 == 0 && b[0] % 4 == 0)) && aligned(floats.data, vector) && aligned(bytes.data, 4);
}

Values values(const awase_tensor &floats, const awase_tensor &bytes) {
  const int64_t *f = floats.strides, *b = bytes.strides;
  return {floats.shape[0], floats.shape[1],           floats.shape[2],         floats.shape[3],
          bytes.shape[3],  {f[0], f[1], f[2], f[3]}, {b[0], b[3], b[1], b[2]}};
}

template <class In>
void pack_as(const awase_tensor &x, const awase_tensor &out, const Stream &stream) {
  Pieces pieces;
  const In *from = static_cast<const In *>(x.data);
  uint8_t *to = static_cast<uint8_t *>(out.data);
  if (fits(x, out, pieces)) return launch(PackPieces<In>{pieces, from, to}, pieces.blocks(), kThreads, stream);
  const Values all = values(x, out);
  launch(PackValues<In>{all, from, to}, all.blocks(), kThreads, stream);
}

bool empty(const awase_tensor &x) { return !x.shape[0] || !x.shape[1] || !x.shape[2] || !x.shape[3]; }

}  // namespace

void pack(const awase_tensor &x, const awase_tensor &out, void *stream) {
  if (empty(x)) return;
  const Stream current(x.device, stream);
  if (x.dtype == AWASE_FLOAT16)
    pack_as<Half>(x, out, current);
  else
    pack_as<float>(x, out, current);
}

void unpack(const awase_tensor &u, const awase_tensor &out, void *stream) {
  if (empty(u)) return;
  const Stream current(u.device, stream);
  Pieces pieces;
  const uint8_t *from = static_cast<const uint8_t *>(u.data);
  float *to = static_cast<float *>(out.data);
  if (fits(out, u, pieces)) return launch(UnpackPieces{pieces, from, to}, pieces.blocks(), kThreads, current);
  const Values all = values(out, u);
  launch(UnpackValues{all, from, to}, all.blocks(), kThreads, current);
}

}  // namespace awase::cuda
