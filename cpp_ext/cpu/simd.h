// Vectors of the instruction set that this file is compiled for, on the vector extensions of GCC and Clang.
//
// Files that include this are compiled once for each instruction set. All they define, and all templates they use, must
// lie in namespace awase::cpu::AWASE_ISA (an inline function of the standard library would be compiled for AVX-512 and
// could then be linked into code that runs anywhere): C headers only, no std:: templates.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define AWASE_INLINE inline __attribute__((always_inline))

namespace awase::cpu::AWASE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
  typedef T unaligned __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int lanes = kBytes / int(sizeof(T));

template <class T>
AWASE_INLINE Vec<T> load(const T *p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned *>(p);
}
template <class T>
AWASE_INLINE void store(T *p, Vec<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned *>(p) = v;
}
template <class T>
AWASE_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};
}

// fma(a, b, c) is a b + c, fnma(a, b, c) is c - a b: rounded once where the instruction set can, else twice.
#if defined(__AVX512F__)
AWASE_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
AWASE_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
AWASE_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fnmadd_ps(a, b, c); }
AWASE_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fnmadd_pd(a, b, c); }
#elif defined(__AVX2__)
AWASE_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
AWASE_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
AWASE_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fnmadd_ps(a, b, c); }
AWASE_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fnmadd_pd(a, b, c); }
#elif defined(__aarch64__)
AWASE_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
AWASE_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmaq_f64(c, a, b); }
AWASE_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmsq_f32(c, a, b); }
AWASE_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmsq_f64(c, a, b); }
#else
template <class V>
AWASE_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}
template <class V>
AWASE_INLINE V fnma(V a, V b, V c) {
  return c - a * b;
}
#endif

// Lanes n .. n + lanes of a and b side by side.
template <int n>
AWASE_INLINE Vec<float> shift(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return Vec<float>(_mm512_maskz_alignr_epi32(0xffff, __m512i(b), __m512i(a), n));
#elif defined(__AVX2__)
  const __m256i middle = _mm256_permute2x128_si256(__m256i(a), __m256i(b), 0x21);
  if constexpr (n < 4)
    return Vec<float>(_mm256_alignr_epi8(middle, __m256i(a), 4 * n));
  else
    return Vec<float>(_mm256_alignr_epi8(__m256i(b), middle, 4 * n - 16));
#elif defined(__aarch64__)
  return vextq_f32(a, b, n);
#else
  Vec<float> v;
  for (int k = 0; k < lanes<float>; ++k) v[k] = k + n < lanes<float> ? a[k + n] : b[k + n - lanes<float>];
  return v;
#endif
}

// Pixels as floats.
AWASE_INLINE Vec<float> load_floats(const float *p) { return load(p); }
AWASE_INLINE Vec<float> load_floats(const uint8_t *p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes));  // GCC 12 warns of the plain ones
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
#elif defined(__SSE2__)
  int32_t four;
  memcpy(&four, p, sizeof(four));
  const __m128i zero = _mm_setzero_si128();
  const __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero);
  return _mm_cvtepi32_ps(_mm_unpacklo_epi16(words, zero));
#else
  Vec<float> v;
  for (int k = 0; k < lanes<float>; ++k) v[k] = float(p[k]);
  return v;
#endif
}

// lanes<double> floats as doubles
AWASE_INLINE Vec<double> load_doubles(const float *p) {
  typedef float Half __attribute__((vector_size(kBytes / 2), aligned(alignof(float)), may_alias));
  typedef float Aligned __attribute__((vector_size(kBytes / 2)));
  return __builtin_convertvector(Aligned(*reinterpret_cast<const Half *>(p)), Vec<double>);
}

}  // namespace
}  // namespace awase::cpu::AWASE_ISA
