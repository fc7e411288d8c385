// Standard normal noise: src/normal.h on vectors, a block of four numbers in each lane.
//
// Blocks are numbered through all samples (row by row), so that every lane works whatever the width of a row is.
#include "cpu/simd.h"
#include "src/normal.h"

namespace awase::cpu::AWASE_ISA {
namespace {

constexpr int kLanes = lanes<double>;

struct Wide {
  using Real = Vec<double>;
  using Bits = Vec<uint64_t>;
  static AWASE_INLINE Real add(Real a, Real b) { return a + b; }
  static AWASE_INLINE Real sub(Real a, Real b) { return a - b; }
  static AWASE_INLINE Real mul(Real a, Real b) { return a * b; }
  static AWASE_INLINE Real div(Real a, Real b) { return a / b; }
  static AWASE_INLINE Bits bits(Real a) { return (Bits)a; }
  static AWASE_INLINE Real real(Bits a) { return (Real)a; }
  static AWASE_INLINE Real all(double a) { return splat(a); }

#if defined(__AVX512F__)  // maskz: GCC 12 warns of what the plain intrinsics leave undefined
  static AWASE_INLINE Real root(Real a) { return (Real)_mm512_maskz_sqrt_pd(0xFF, (__m512d)a); }
  static AWASE_INLINE Bits wide(Bits a, uint32_t b) {
    return (Bits)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, _mm512_set1_epi64(b));
  }
#elif defined(__AVX2__)
  static AWASE_INLINE Real root(Real a) { return (Real)_mm256_sqrt_pd((__m256d)a); }
  static AWASE_INLINE Bits wide(Bits a, uint32_t b) {
    return (Bits)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
  }
#elif defined(__x86_64__)
  static AWASE_INLINE Real root(Real a) { return (Real)_mm_sqrt_pd((__m128d)a); }
  static AWASE_INLINE Bits wide(Bits a, uint32_t b) { return (Bits)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b)); }
#elif defined(__ARM_NEON)
  static AWASE_INLINE Real root(Real a) { return (Real)vsqrtq_f64((float64x2_t)a); }
  static AWASE_INLINE Bits wide(Bits a, uint32_t b) { return (Bits)vmull_n_u32(vmovn_u64((uint64x2_t)a), b); }
#else
  static AWASE_INLINE Real root(Real a) {
    for (int lane = 0; lane < kLanes; ++lane) a[lane] = __builtin_sqrt(a[lane]);
    return a;
  }
  static AWASE_INLINE Bits wide(Bits a, uint32_t b) { return (a & uint64_t(0xFFFFFFFFu)) * uint64_t(b); }
#endif
};

// Rounds n0 .. n3 and puts them in the order of memory: n0[0] n1[0] n2[0] n3[0] n0[1] …
AWASE_INLINE void interleave(Vec<double> n0, Vec<double> n1, Vec<double> n2, Vec<double> n3, float *out) {
  typedef float Half __attribute__((vector_size(kBytes / 2)));
  const Half a = __builtin_convertvector(n0, Half), b = __builtin_convertvector(n1, Half);
  const Half c = __builtin_convertvector(n2, Half), d = __builtin_convertvector(n3, Half);
#if defined(__AVX512F__)
#define AWASE_ZIP 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15
#define AWASE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define AWASE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif defined(__AVX2__)
#define AWASE_ZIP 0, 4, 1, 5, 2, 6, 3, 7
#define AWASE_LOW 0, 4, 1, 5
#define AWASE_HIGH 2, 6, 3, 7
#else
#define AWASE_ZIP 0, 2, 1, 3
#define AWASE_LOW 0, 2
#define AWASE_HIGH 1, 3
#endif
  const Vec<uint64_t> ab = (Vec<uint64_t>)__builtin_shufflevector(a, b, AWASE_ZIP);
  const Vec<uint64_t> cd = (Vec<uint64_t>)__builtin_shufflevector(c, d, AWASE_ZIP);
  store(out, (Vec<float>)__builtin_shufflevector(ab, cd, AWASE_LOW));
  store(out + lanes<float>, (Vec<float>)__builtin_shufflevector(ab, cd, AWASE_HIGH));
#undef AWASE_ZIP
#undef AWASE_LOW
#undef AWASE_HIGH
}

}  // namespace

// Blocks begin .. end of the rows out[k], k = 0, 1, … (samples first + k), each of `dim` numbers.
void noise(uint64_t seed, uint64_t first, float *out, int64_t dim, int64_t row_stride, int64_t stride, int64_t begin,
           int64_t end) {
  const uint64_t blocks = uint64_t(dim + 3) / 4;
  const bool whole = stride == 1 && row_stride == dim && dim % 4 == 0;

  // Row and block of every lane; they go forward by kLanes blocks.
  Vec<uint64_t> row, block;
  for (int lane = 0; lane < kLanes; ++lane) {
    row[lane] = uint64_t(begin + lane) / blocks;
    block[lane] = uint64_t(begin + lane) % blocks;
  }
  const uint64_t row_step = kLanes / blocks, block_step = kLanes % blocks;

  for (int64_t index = begin; index < end; index += kLanes) {
    Vec<double> n0, n1, n2, n3;
    normal::normal4<Wide>(seed, row + first, block, n0, n1, n2, n3);
    if (whole && end - index >= kLanes) {
      interleave(n0, n1, n2, n3, out + 4 * index);
    } else {
      float numbers[4 * kLanes];
      interleave(n0, n1, n2, n3, numbers);
      for (int lane = 0; lane < kLanes && index + lane < end; ++lane) {
        const int64_t column = 4 * int64_t(block[lane]);
        float *to = out + int64_t(row[lane]) * row_stride + column * stride;
        const int count = dim - column < 4 ? int(dim - column) : 4;
        if (stride == 1 && count == 4)
          memcpy(to, numbers + 4 * lane, 4 * sizeof(float));
        else
          for (int k = 0; k < count; ++k) to[k * stride] = numbers[4 * lane + k];
      }
    }
    row += row_step;
    block += block_step;
    const Vec<uint64_t> past = (Vec<uint64_t>)(block >= blocks);
    block -= past & blocks;
    row -= past;
  }
}

}  // namespace awase::cpu::AWASE_ISA
