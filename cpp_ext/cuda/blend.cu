// Blending of latents: every value is read once and written once. Where one pair is blended under many weights, a
// thread keeps its values of the pair in registers and writes the results for several weights.
#include <vector>

#include "cuda/launch.h"

namespace awase::cuda {
namespace {

struct Latents {
  float *data;
  int64_t n, c, h, w;
};

// kWidth neighbours at once: 4 where every channel is contiguous and begins on 16 bytes, else 1.
template <int kWidth>
struct Blend {
  static constexpr int kThreads = 256, kBlocks = 4;
  struct Shared {};
  struct Registers {};
  using Values = Pack<float, kWidth>;

  Latents za, zb, out;
  const float *weights;
  int64_t weights_l, weights_p;
  const int32_t *ends;  // one past each part's last channel
  int parts;
  bool grid;            // one pair, many weights
  int64_t count;        // of results
  int64_t channels, height, width;
  int64_t chunk;        // results of a thread

  AWASE_BODY int64_t vectors() const { return channels * height * width / kWidth; }
  AWASE_BODY int64_t blocks_each() const { return divide_up(vectors(), kThreads); }
  AWASE_BODY int64_t blocks() const { return blocks_each() * divide_up(count, chunk); }

  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t block, int thread, Shared &, Registers &) const {
    const int64_t index = block % blocks_each() * kThreads + thread, first = block / blocks_each() * chunk;
    if (index >= vectors()) return;
    const int64_t size = height * width / kWidth, channel = index / size, place = index % size * kWidth;
    const int64_t row = place / width, column = place % width;
    int low = 0, high = parts - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (channel < ends[middle])
        high = middle;
      else
        low = middle + 1;
    }
    const float *a = za.data + channel * za.c + row * za.h + column * za.w;
    const float *b = zb.data + channel * zb.c + row * zb.h + column * zb.w;
    float *to = out.data + channel * out.c + row * out.h + column * out.w;
    Values x, y;
    if (grid) {
      x = *reinterpret_cast<const Values *>(a);
      y = *reinterpret_cast<const Values *>(b);
    }
    const int64_t last = least(count, first + chunk);
    for (int64_t l = first; l < last; ++l) {
      if (!grid) {
        x = *reinterpret_cast<const Values *>(a + l * za.n);
        y = *reinterpret_cast<const Values *>(b + l * zb.n);
      }
      const float weight = weights[l * weights_l + low * weights_p], rest = 1 - weight;
      Values mixed;
      AWASE_UNROLL
      for (int k = 0; k < kWidth; ++k) {
        // At 0 and 1 no bit may change, and a value that is not asked for must not bring its not-a-number.
        const float sum = multiply_add(weight, x.at[k], rest * y.at[k]);
        mixed.at[k] = weight == 1 ? x.at[k] : weight == 0 ? y.at[k] : sum;
      }
      *reinterpret_cast<Values *>(to + l * out.n) = mixed;
    }
  }
};

Latents latents(const awase_tensor &z) {
  return {static_cast<float *>(z.data), z.strides[0], z.strides[1], z.strides[2], z.strides[3]};
}

// Whether each channel lies in one piece that begins on 16 bytes.
bool vectors(const awase_tensor &z) {
  const int64_t height = z.shape[2], width = z.shape[3];
  return height * width % 4 == 0 && (width == 1 || z.strides[3] == 1) && (height == 1 || z.strides[2] == width) &&
         (z.shape[1] == 1 || z.strides[1] % 4 == 0) && (z.shape[0] == 1 || z.strides[0] % 4 == 0) &&
         aligned(z.data, 16) && (width > 1 || z.strides[2] == 1);
}

template <int kWidth>
void enqueue(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights, const Parts &parts,
             const awase_tensor &out, const Stream &stream) {
  Blend<kWidth> blend = {};
  blend.za = latents(za), blend.zb = latents(zb), blend.out = latents(out);
  blend.parts = int(parts.count);
  blend.count = out.shape[0], blend.channels = out.shape[1], blend.height = out.shape[2], blend.width = out.shape[3];
  blend.grid = za.shape[0] == 1;

  // What is in host memory goes to the device: the parts, and the weights if they are there.
  const bool host = weights.device == AWASE_CPU;
  const int64_t rows = weights.shape[0], given = host ? rows * parts.count : 0;
  std::vector<uint32_t> words(size_t(parts.count + given));
  for (int64_t p = 0; p < parts.count; ++p) words[size_t(p)] = uint32_t(parts.ends[p]);
  for (int64_t k = 0; k < given; ++k) {
    const int64_t at = k / parts.count * weights.strides[0] + k % parts.count * weights.strides[1];
    std::memcpy(&words[size_t(parts.count + k)], static_cast<const float *>(weights.data) + at, 4);
  }
  const Scratch scratch(stream, int64_t(words.size()) * 4);
  upload(words.data(), int64_t(words.size()), scratch.at<uint32_t>(), stream);
  blend.ends = scratch.at<int32_t>();
  blend.weights = host ? scratch.at<float>(parts.count * 4) : static_cast<const float *>(weights.data);
  blend.weights_l = rows == 1 ? 0 : host ? parts.count : weights.strides[0];
  blend.weights_p = host ? 1 : weights.strides[1];

  blend.chunk = blend.grid ? 16 : 1;
  while (blend.chunk > 1 && blend.blocks() < 8 * int64_t(stream.cores())) blend.chunk /= 2;
  launch(blend, blend.blocks(), blend.kThreads, stream);
}

}  // namespace

void blend(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights, const Parts &parts,
           const awase_tensor &out, void *stream) {
  if (!out.shape[0] || !out.shape[1] || !out.shape[2] || !out.shape[3]) return;
  const Stream current(out.device, stream);
  if (vectors(za) && vectors(zb) && vectors(out))
    enqueue<4>(za, zb, weights, parts, out, current);
  else
    enqueue<1>(za, zb, weights, parts, out, current);
}

}  // namespace awase::cuda
