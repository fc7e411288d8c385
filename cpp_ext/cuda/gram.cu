// Gram matrices and their gradient: which tiles, and whether the sums are split.
#include "cuda/gram.cuh"

namespace awase::cuda {
namespace {

constexpr int64_t kMostScratch = int64_t(256) << 20;  // bytes

template <class T>
Matrices<T> matrices(const awase_tensor &x) {
  const int64_t *strides = x.strides;
  const bool vectors = (strides[2] == 1 || x.shape[2] == 1) && aligned(x.data, 16) &&
                       (x.shape[0] == 1 || strides[0] % 4 == 0) && (x.shape[1] == 1 || strides[1] % 4 == 0);
  return {static_cast<T *>(x.data), strides[0], strides[1], strides[2], vectors};
}

template <int kTile>
void forward(const awase_tensor &f, const awase_tensor &out, const Stream &stream) {
  Gram<kTile> gram = {};
  gram.f = matrices<const float>(f);
  gram.out = matrices<float>(out);
  gram.count = f.shape[0], gram.channels = f.shape[1], gram.length = f.shape[2];
  gram.scale = float(1.0 / (double(gram.channels) * double(gram.length)));
  const int64_t splits = divide_up(gram.length, Gram<kTile>::kLeaf);
  const int64_t size = gram.count * gram.channels * gram.channels;
  // Blocks that a GPU holds at once: with fewer tiles than that, every leaf is a block.
  const bool few = gram.blocks() < int64_t(stream.cores()) * Gram<kTile>::kBlocks;
  const bool split = few && splits > 1 && size * splits * 4 <= kMostScratch;
  const Scratch scratch(stream, split ? size * splits * 4 : 0);
  gram.leaves = split ? scratch.at<float>() : nullptr;
  launch(gram, gram.blocks(), gram.kThreads, stream);
  if (split) {
    const Leaves leaves{gram.out, gram.leaves, gram.count, gram.channels, splits, gram.scale};
    launch(leaves, divide_up(size, Leaves::kThreads), Leaves::kThreads, stream);
  }
}

template <int kTile>
void backward(const awase_tensor &f, const Matrices<const float> &g, const awase_tensor &out, const Stream &stream) {
  GramBackward<kTile> product = {};
  product.g = g;
  product.f = matrices<const float>(f);
  product.out = matrices<float>(out);
  product.count = f.shape[0], product.channels = f.shape[1], product.length = f.shape[2];
  launch(product, product.blocks(), product.kThreads, stream);
}

}  // namespace

void gram(const awase_tensor &f, const awase_tensor &out, void *stream) {
  if (!f.shape[0] || !f.shape[1] || !f.shape[2]) return;
  const Stream current(f.device, stream);
  if (f.shape[1] <= 64)
    forward<64>(f, out, current);
  else
    forward<128>(f, out, current);
}

void gram_backward(const awase_tensor &f, const awase_tensor &g, const awase_tensor &out, void *stream) {
  const int64_t count = f.shape[0], channels = f.shape[1], length = f.shape[2];
  if (!count || !channels || !length) return;
  const Stream current(f.device, stream);
  const int64_t pitch = divide_up(channels, 4) * 4;
  const Scratch scratch(current, count * channels * pitch * 4);
  Symmetric symmetric = {};
  symmetric.g = matrices<const float>(g);
  symmetric.to = scratch.at<float>();
  symmetric.count = count, symmetric.channels = channels, symmetric.pitch = pitch;
  symmetric.scale = float(1.0 / (double(channels) * double(length)));
  launch(symmetric, count * symmetric.across() * symmetric.across(), Symmetric::kThreads, current);
  const Matrices<const float> left{scratch.at<float>(), channels * pitch, pitch, 1, true};
  if (channels <= 64)
    backward<64>(f, left, out, current);
  else
    backward<128>(f, left, out, current);
}

}  // namespace awase::cuda
