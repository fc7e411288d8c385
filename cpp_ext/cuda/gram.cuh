// Gram matrices and their gradient on a GPU: products of float matrices, tile by tile.
//
// A block computes a tile of kTile x kTile sums, each thread 8 x 8 of them in registers. Slices of 16 steps of the sum
// go through shared memory, twice buffered: while one is used, the next is on its way from memory to registers. Per
// step a thread reads 16 values from shared memory for 64 multiply-adds. Only the upper triangle of a Gram matrix is
// computed: in diagonal tiles a warp leaves out its 32 x 64 sums, or the left half of them, where they lie below.
//
// Rounding: a float sum over a long K would drift. So sums are closed after every leaf of kLeaf steps, and the leaves
// are added in order, either by the block itself (in `out`, while the tile is its own) or, when there are too few tiles
// to fill the GPU, from scratch memory by a second kernel. Both ways give the same bits.
#pragma once

#include "cuda/launch.h"

namespace awase::cuda {

// [N, rows, columns], strides in elements.
template <class T>
struct Matrices {
  T *data;
  int64_t n, row, column;
  bool vectors;  // rows are contiguous and each begins on 16 bytes
  AWASE_BODY T *at(int64_t n_, int64_t i, int64_t j) const { return data + n_ * n + i * row + j * column; }
};

template <int kTile>
struct Multiply {
  static constexpr int kThreads = kTile * kTile / 64, kBlocks = kTile == 128 ? 2 : 6;
  static constexpr int kSteps = 16;           // of the sum, in a slice
  static constexpr int kPitch = kTile + 4;    // 16-byte rows; transposed stores of a warp meet no bank twice
  static constexpr int kLoads = kTile * kSteps / 4 / kThreads;  // vectors of 4 per thread, operand and slice

  struct Slice {
    alignas(16) float at[kSteps][kPitch];
  };
  struct Shared {
    Slice left[2], right[2];
  };
  struct Registers {
    float sums[8][8];
    int row, column;                 // of the sums, in the tile: row + 0..3, row + 16 + 0..3, column and 32 likewise
    const float *left_at, *right_at; // where this thread loads from next
    int left_count, right_count;     // elements that are there in the direction of the tile
    float4 left[kLoads], right[kLoads];
    bool diagonal;
    int slices;     // of the block's sum
    int64_t steps;  // that are still to be loaded
  };

  static AWASE_BODY void begin(int thread, Registers &mine) {
    const int warp = thread / 32, lane = thread % 32;
    mine.row = warp % (kTile / 32) * 32 + lane / 8 * 4;
    mine.column = warp / (kTile / 32) * 64 + lane % 8 * 4;
  }
  static AWASE_BODY int row(const Registers &mine, int i) { return mine.row + i % 4 + i / 4 * 16; }
  static AWASE_BODY int column(const Registers &mine, int j) { return mine.column + j % 4 + j / 4 * 32; }

  static AWASE_BODY void clear(Registers &mine) {
    AWASE_UNROLL
    for (int i = 0; i < 8; ++i)
      AWASE_UNROLL
      for (int j = 0; j < 8; ++j) mine.sums[i][j] = 0;
  }

  // Four neighbours in a row of which `count` more elements are there; 0 past them.
  static AWASE_BODY float4 four(const Matrices<const float> &m, const float *from, int64_t count) {
    if (m.vectors && count >= 4) return *reinterpret_cast<const float4 *>(from);
    float4 value{0, 0, 0, 0};
    if (count > 0) value.x = from[0];
    if (count > 1) value.y = from[m.column];
    if (count > 2) value.z = from[2 * m.column];
    if (count > 3) value.w = from[3 * m.column];
    return value;
  }

  // The place of load k in a slice whose rows run along the sum (two threads read 32 bytes of a row) …
  static AWASE_BODY int row_along(int k) { return k / 2 * (kThreads / 2); }  // + thread / 2
  static AWASE_BODY int step_along(int k) { return k % 2 * 8; }              // + thread % 2 * 4
  static AWASE_BODY void store_along(Slice &slice, int thread, int k, float4 value) {
    const int row = thread / 2 + row_along(k), step = thread % 2 * 4 + step_along(k);
    slice.at[step][row] = value.x;
    slice.at[step + 1][row] = value.y;
    slice.at[step + 2][row] = value.z;
    slice.at[step + 3][row] = value.w;
  }
  // … and in one whose rows run across it.
  static constexpr int kAcross = kTile / 4;                                    // threads for a step
  static AWASE_BODY int step_across(int k) { return k * (kThreads / kAcross); }  // + thread / kAcross
  static AWASE_BODY void store_across(Slice &slice, int thread, int k, float4 value) {
    const int step = thread / kAcross + step_across(k), place = thread % kAcross * 4;
    *reinterpret_cast<float4 *>(&slice.at[step][place]) = value;
  }

  // Sums in columns kFirst .. 7 of the thread's eight.
  template <int kFirst>
  static AWASE_BODY void multiply(const Slice &left, const Slice &right, Registers &mine) {
    AWASE_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const float4 *l = reinterpret_cast<const float4 *>(&left.at[step][mine.row]);
      const float4 *r = reinterpret_cast<const float4 *>(&right.at[step][mine.column]);
      const float4 l0 = l[0], l1 = l[4], r0 = kFirst ? float4{} : r[0], r1 = r[8];
      const float x[8] = {l0.x, l0.y, l0.z, l0.w, l1.x, l1.y, l1.z, l1.w};
      const float y[8] = {r0.x, r0.y, r0.z, r0.w, r1.x, r1.y, r1.z, r1.w};
      AWASE_UNROLL
      for (int i = 0; i < 8; ++i)
        AWASE_UNROLL
        for (int j = kFirst; j < 8; ++j) mine.sums[i][j] = multiply_add(x[i], y[j], mine.sums[i][j]);
    }
  }
};

// ---- out = f f^T scale ----

template <int kTile>
struct Gram : Multiply<kTile> {
  using Base = Multiply<kTile>;
  using typename Base::Registers;
  using typename Base::Shared;
  static constexpr int kLeaf = 256, kLeafSlices = kLeaf / Base::kSteps;
  static constexpr bool kDiagonal = kTile == 64;  // that size is for at most 64 channels

  Matrices<const float> f;  // [N, C, K]
  Matrices<float> out;      // [N, C, C]
  float *leaves;            // [leaf, N, C, C], or null: a block adds the leaves of its tile itself
  int64_t count, channels, length;
  float scale;

  AWASE_BODY int64_t across() const { return divide_up(channels, kTile); }
  AWASE_BODY int64_t tiles() const { return across() * (across() + 1) / 2; }
  AWASE_BODY int64_t splits() const { return leaves ? divide_up(length, kLeaf) : 1; }
  AWASE_BODY int64_t blocks() const { return count * tiles() * splits(); }

  // Block → image n, tile (i, j) of the upper triangle, and the steps from which and to which it sums.
  struct Task {
    int64_t n, split, i, j, from, to;
  };
  AWASE_BODY Task task(int64_t block) const {
    Task t;
    t.split = block % splits();
    int64_t tile = block / splits() % tiles();
    t.n = block / splits() / tiles();
    for (t.i = 0; tile >= across() - t.i; ++t.i) tile -= across() - t.i;
    t.j = t.i + tile;
    t.from = leaves ? t.split * kLeaf : 0;
    t.to = leaves ? least<int64_t>(length, t.from + kLeaf) : length;
    return t;
  }

  AWASE_BODY int phases(int64_t block) const {
    const Task t = task(block);
    return 1 + int(divide_up(t.to - t.from, Base::kSteps));
  }

  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &mine) const {
    if (p == 0) {
      const Task t = task(block);
      Base::begin(thread, mine);
      Base::clear(mine);
      const int64_t top = t.i * kTile + thread / 2, left = t.j * kTile + thread / 2, step = t.from + thread % 2 * 4;
      mine.left_at = f.at(t.n, top, step), mine.right_at = f.at(t.n, left, step);
      mine.left_count = int(channels - top), mine.right_count = int(channels - left);
      mine.diagonal = kDiagonal || t.i == t.j;
      mine.steps = t.to - step;
      mine.slices = int(divide_up(t.to - t.from, Base::kSteps));
      load(mine);
      store(0, thread, shared, mine);
      return;
    }
    const bool more = p < mine.slices;
    if (more) load(mine);
    // How far the warp's 32 x 64 sums lie below the diagonal: not, by their left half, or wholly.
    const int below = mine.diagonal ? mine.row / 32 - mine.column / 64 * 2 : 0;
    const int which = (p - 1) % 2;
    if (below < 2) {
      const auto &right = mine.diagonal ? shared.left[which] : shared.right[which];
      if (below < 1)
        Base::template multiply<0>(shared.left[which], right, mine);
      else
        Base::template multiply<4>(shared.left[which], right, mine);
      if (!more || p % kLeafSlices == 0) {
        finish(task(block), !leaves && p > kLeafSlices, !more, mine);
        Base::clear(mine);
      }
    }
    if (more) store(1 - which, thread, shared, mine);
  }

  AWASE_BODY void load(Registers &mine) const {
    AWASE_UNROLL
    for (int k = 0; k < Base::kLoads; ++k) {
      const int row = Base::row_along(k), step = Base::step_along(k);
      const int64_t place = row * f.row + step * f.column, count = mine.steps - step;
      mine.left[k] = Base::four(f, mine.left_at + place, row < mine.left_count ? count : 0);
      if (!mine.diagonal) mine.right[k] = Base::four(f, mine.right_at + place, row < mine.right_count ? count : 0);
    }
    mine.left_at += Base::kSteps * f.column;
    mine.right_at += Base::kSteps * f.column;
    mine.steps -= Base::kSteps;
  }

  AWASE_BODY void store(int which, int thread, Shared &shared, const Registers &mine) const {
    AWASE_UNROLL
    for (int k = 0; k < Base::kLoads; ++k) {
      Base::store_along(shared.left[which], thread, k, mine.left[k]);
      if (!mine.diagonal) Base::store_along(shared.right[which], thread, k, mine.right[k]);
    }
  }

  // The leaf's sums go to scratch memory, or onto those before and, after the last leaf, into both triangles.
  AWASE_BODY void finish(const Task &t, bool onto, bool last, Registers &mine) const {
    AWASE_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int64_t row = t.i * kTile + Base::row(mine, i);
      if (row >= channels) continue;
      float *leaf = leaves ? leaves + ((t.split * count + t.n) * channels + row) * channels : nullptr;
      AWASE_UNROLL
      for (int j = 0; j < 8; ++j) {
        const int64_t column = t.j * kTile + Base::column(mine, j);
        if (row > column || column >= channels) continue;
        if (leaf) {
          leaf[column] = mine.sums[i][j];
          continue;
        }
        float *to = out.at(t.n, row, column);
        const float sum = onto ? *to + mine.sums[i][j] : mine.sums[i][j];
        *to = last ? sum * scale : sum;
        if (last && row != column) *out.at(t.n, column, row) = sum * scale;
      }
    }
  }
};

// Adds up the leaves of every element in the upper triangle.
struct Leaves {
  static constexpr int kThreads = 256, kBlocks = 1;
  struct Shared {};
  struct Registers {};

  Matrices<float> out;
  const float *leaves;
  int64_t count, channels, splits;
  float scale;

  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t block, int thread, Shared &, Registers &) const {
    const int64_t size = count * channels * channels, index = block * kThreads + thread;
    if (index >= size) return;
    const int64_t n = index / channels / channels, row = index / channels % channels, column = index % channels;
    if (row > column) return;
    float sum = leaves[index];
    for (int64_t k = 1; k < splits; ++k) sum += leaves[k * size + index];
    *out.at(n, row, column) = sum * scale;
    if (row != column) *out.at(n, column, row) = sum * scale;
  }
};

// ---- out = (g + g^T) f scale ----

// [N, C, C'] = (g + g^T) scale, in rows of C' floats, a multiple of 4.
struct Symmetric {
  static constexpr int kThreads = 256, kBlocks = 1, kTile = 32;
  struct Shared {
    float turned[kTile][kTile + 1];
  };
  struct Registers {};

  Matrices<const float> g;
  float *to;
  int64_t count, channels, pitch;
  float scale;

  AWASE_BODY int64_t across() const { return divide_up(channels, kTile); }
  AWASE_BODY int phases(int64_t) const { return 2; }
  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &) const {
    const int64_t n = block / (across() * across()), tile = block % (across() * across());
    const int64_t top = tile / across() * kTile, left = tile % across() * kTile;
    for (int k = thread; k < kTile * kTile; k += kThreads) {
      const int i = k / kTile, j = k % kTile;
      if (p == 0) {
        const bool inside = left + i < channels && top + j < channels;
        shared.turned[i][j] = inside ? *g.at(n, left + i, top + j) : 0;
      } else if (top + i < channels && left + j < channels) {
        to[(n * channels + top + i) * pitch + left + j] = (*g.at(n, top + i, left + j) + shared.turned[j][i]) * scale;
      }
    }
  }
};

template <int kTile>
struct GramBackward : Multiply<kTile> {
  using Base = Multiply<kTile>;
  using typename Base::Registers;
  using typename Base::Shared;

  Matrices<const float> g, f;  // g is symmetric: its rows are its columns
  Matrices<float> out;
  int64_t count, channels, length;

  AWASE_BODY int64_t down() const { return divide_up(channels, kTile); }
  AWASE_BODY int64_t across() const { return divide_up(length, kTile); }
  AWASE_BODY int64_t blocks() const { return count * down() * across(); }
  AWASE_BODY int phases(int64_t) const { return 1 + int(divide_up(channels, Base::kSteps)); }

  struct Task {
    int64_t n, top, left;
  };
  AWASE_BODY Task task(int64_t block) const {
    return {block / down() / across(), block % down() * kTile, block / down() % across() * kTile};
  }

  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &mine) const {
    if (p == 0) {
      const Task t = task(block);
      Base::begin(thread, mine);
      Base::clear(mine);
      const int64_t step = thread / Base::kAcross, aside = thread % Base::kAcross * 4;
      mine.left_at = g.at(t.n, step, t.top + aside), mine.right_at = f.at(t.n, step, t.left + aside);
      mine.left_count = int(least<int64_t>(4, channels - t.top - aside));
      mine.right_count = int(least<int64_t>(4, length - t.left - aside));
      mine.steps = channels - step;
    }
    const bool more = p < int(divide_up(channels, Base::kSteps));
    if (more) load(mine);
    if (p > 0) Base::template multiply<0>(shared.left[(p - 1) % 2], shared.right[(p - 1) % 2], mine);
    if (more)
      AWASE_UNROLL
      for (int k = 0; k < Base::kLoads; ++k) {
        Base::store_across(shared.left[p % 2], thread, k, mine.left[k]);
        Base::store_across(shared.right[p % 2], thread, k, mine.right[k]);
      }
    else
      write(task(block), mine);
  }

  AWASE_BODY void load(Registers &mine) const {
    AWASE_UNROLL
    for (int k = 0; k < Base::kLoads; ++k) {
      const int step = Base::step_across(k);
      mine.left[k] = Base::four(g, mine.left_at + step * g.row, step < mine.steps ? mine.left_count : 0);
      mine.right[k] = Base::four(f, mine.right_at + step * f.row, step < mine.steps ? mine.right_count : 0);
    }
    mine.left_at += Base::kSteps * g.row;
    mine.right_at += Base::kSteps * f.row;
    mine.steps -= Base::kSteps;
  }

  AWASE_BODY void write(const Task &t, const Registers &mine) const {
    AWASE_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int64_t row = t.top + Base::row(mine, i);
      if (row >= channels) continue;
      AWASE_UNROLL
      for (int j = 0; j < 8; j += 4) {
        const int64_t column = t.left + Base::column(mine, j);
        if (column >= length) continue;
        float *to = out.at(t.n, row, column);
        const float *sums = mine.sums[i] + j;
        if (out.vectors && column + 4 <= length) {
          *reinterpret_cast<float4 *>(to) = float4{sums[0], sums[1], sums[2], sums[3]};
          continue;
        }
        AWASE_UNROLL
        for (int k = 0; k < 4; ++k)
          if (column + k < length) to[k * out.column] = sums[k];
      }
    }
  }
};

}  // namespace awase::cuda
