// Standard normal numbers from counters: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011) and the transform of Box and Muller (1958), for CPUs, for vectors and for CUDA.
//
//   u = (x + 1/2) 2^-32 for each 32-bit word x;  r = sqrt(-2 ln u0);  n0 = r cos(2 pi u1), n1 = r sin(2 pi u1)
//
// The same bits come out everywhere, for all is made of integer operations and of +, -, *, / and sqrt in binary64, each
// correctly rounded, in a fixed order and never contracted. The polynomials are minimax (Remez), relative errors
// 2e-16 (ln), 4e-18 (sin), 6e-17 (cos); with rounding, each function is within 1e-15 of the exact one, relative, for
// every word. So a number rounded to binary32 is within 1 ulp of the exact transform (and all but always equal to it).
//
// Templates over an arithmetic A: A::Real holds one or more doubles, A::Bits as many 64-bit integers. `Scalar` below
// is the plain one, on hosts and devices. Files of vector code bring their own; see cpu/noise.cpp.
#pragma once

#include <stdint.h>
#include <string.h>

#ifndef AWASE_HD
#if defined(__CUDACC__)
#define AWASE_HD __host__ __device__
#else
#define AWASE_HD
#endif
#endif

namespace awase {
namespace {  // no symbols: what is compiled for one instruction set must not be linked into another's code

namespace normal {

#define AWASE_NORMAL AWASE_HD inline __attribute__((always_inline))

// The word of the counter that keeps streams of random numbers of one seed apart.
constexpr uint32_t kNormalStream = 0;

struct Scalar {
  using Real = double;
  using Bits = uint64_t;
#if defined(__CUDA_ARCH__)
  static AWASE_NORMAL double add(double a, double b) { return __dadd_rn(a, b); }
  static AWASE_NORMAL double sub(double a, double b) { return __dsub_rn(a, b); }
  static AWASE_NORMAL double mul(double a, double b) { return __dmul_rn(a, b); }
  static AWASE_NORMAL double div(double a, double b) { return __ddiv_rn(a, b); }
  static AWASE_NORMAL double root(double a) { return __dsqrt_rn(a); }
  static AWASE_NORMAL uint64_t bits(double a) { return uint64_t(__double_as_longlong(a)); }
  static AWASE_NORMAL double real(uint64_t a) { return __longlong_as_double((long long)a); }
#else
  static AWASE_NORMAL double add(double a, double b) { return a + b; }
  static AWASE_NORMAL double sub(double a, double b) { return a - b; }
  static AWASE_NORMAL double mul(double a, double b) { return a * b; }
  static AWASE_NORMAL double div(double a, double b) { return a / b; }
  static AWASE_NORMAL double root(double a) { return __builtin_sqrt(a); }
  static AWASE_NORMAL uint64_t bits(double a) {
    uint64_t b;
    memcpy(&b, &a, sizeof(b));
    return b;
  }
  static AWASE_NORMAL double real(uint64_t a) {
    double b;
    memcpy(&b, &a, sizeof(b));
    return b;
  }
#endif
  static AWASE_NORMAL double all(double a) { return a; }
  // The product of the low 32 bits of a and of b.
  static AWASE_NORMAL uint64_t wide(uint64_t a, uint32_t b) { return uint64_t(uint32_t(a)) * b; }
};

// Philox 4x32-10: c0 .. c3, the counter, become 128 random bits, a 32-bit word in each (the high halves are cleared).
template <class A>
AWASE_NORMAL void philox(typename A::Bits &c0, typename A::Bits &c1, typename A::Bits &c2, typename A::Bits &c3,
                         uint64_t key) {
  using Bits = typename A::Bits;
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    // High halves of c0 .. c3 hold rubbish between the rounds: `wide` does not look at them.
    const Bits p0 = A::wide(c0, 0xD2511F53u), p1 = A::wide(c2, 0xCD9E8D57u);
    const Bits n0 = (p1 >> 32) ^ c1 ^ uint64_t(k0), n2 = (p0 >> 32) ^ c3 ^ uint64_t(k1);
    c0 = n0, c1 = p1, c2 = n2, c3 = p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  const uint64_t low = 0xFFFFFFFFu;
  c0 = c0 & low, c1 = c1 & low, c2 = c2 & low, c3 = c3 & low;
}

// a + w b
template <class A>
AWASE_NORMAL typename A::Real horner(typename A::Real a, typename A::Real w, typename A::Real b) {
  return A::add(a, A::mul(w, b));
}

// -2 ln u for u = (x + 1/2) 2^-32.
template <class A>
AWASE_NORMAL typename A::Real minus_two_log(typename A::Bits x) {
  using Bits = typename A::Bits;
  using Real = typename A::Real;
  // Doubles in [2^19, 2^20) are 2^-33 apart: 2^19 + u by its bits, then u, exactly.
  const Real u = A::sub(A::real((x + x) | (uint64_t(0x3FF + 19) << 52) | uint64_t(1)), A::all(0x1p19));
  // u = m 2^e with m in [sqrt(1/2), sqrt(2)): no cancellation where u is close to 1. i holds e + 64 and m's bits.
  const uint64_t middle = 0x3FE6A09E667F3BCD;  // sqrt(1/2)
  const Bits i = A::bits(u) - middle + (uint64_t(64) << 52);
  const Real e = A::sub(A::real((i >> 52) | (uint64_t(0x3FF + 52) << 52)), A::all(0x1p52 + 64));
  const Real m = A::real((i & ((uint64_t(1) << 52) - 1)) + middle);
  // ln m = ln((1 + s) / (1 - s)) = 2 s + 2/3 s^3 + …
  const Real f = A::sub(m, A::all(1.0)), s = A::div(f, A::add(m, A::all(1.0))), z = A::mul(s, s);
  Real p = horner<A>(A::all(-0x1.732c14a13019cp-2), z, A::all(-0x1.587856a53bb47p-2));
  p = horner<A>(A::all(-0x1.c72278941e186p-2), z, p);
  p = horner<A>(A::all(-0x1.24924176e077cp-1), z, p);
  p = horner<A>(A::all(-0x1.999999a294ad8p-1), z, p);
  p = horner<A>(A::all(-0x1.5555555553960p+0), z, p);
  p = horner<A>(A::all(-4.0), z, p);
  return A::add(A::mul(e, A::all(-0x1.62e42fefa39efp+0)), A::mul(s, p));
}

// cos(2 pi u) and sin(2 pi u) for u = (x + 1/2) 2^-32.
template <class A>
AWASE_NORMAL void cos_sin(typename A::Bits x, typename A::Real &cosine, typename A::Real &sine) {
  using Bits = typename A::Bits;
  using Real = typename A::Real;
  // 4 u = q + y, q the nearest integer, y in (-1/2, 1/2): v has q above 31 bits of y + 1/2 in units of 2^-31.
  const Bits v = x + x + ((uint64_t(1) << 30) + 1);
  const Real y = A::sub(A::real((v & ((uint64_t(1) << 31) - 1)) | (uint64_t(0x3FF + 21) << 52)), A::all(0x1p21 + 0.5));
  const Real w = A::mul(y, y);
  Real s = horner<A>(A::all(-0x1.e3009897605b2p-19), w, A::all(0x1.e3ff27bdadb4fp-25));
  s = horner<A>(A::all(0x1.5078300c421f3p-13), w, s);
  s = horner<A>(A::all(-0x1.32d2cce324134p-8), w, s);
  s = horner<A>(A::all(0x1.466bc67758cb2p-4), w, s);
  s = horner<A>(A::all(-0x1.4abbce625be46p-1), w, s);
  s = horner<A>(A::all(0x1.921fb54442d18p+0), w, s);
  s = A::mul(y, s);  // sin(pi/2 y)
  Real c = horner<A>(A::all(-0x1.a6c9ca510ad9cp-16), w, A::all(0x1.f3dcefc212183p-22));
  c = horner<A>(A::all(0x1.e1f4fb8446dcbp-11), w, c);
  c = horner<A>(A::all(-0x1.55d3c7dc3de0ap-6), w, c);
  c = horner<A>(A::all(0x1.03c1f081b0e28p-2), w, c);
  c = horner<A>(A::all(-0x1.3bd3cc9be459dp+0), w, c);
  c = horner<A>(A::all(1.0), w, c);  // cos(pi/2 y)
  // Turn by q quarters: odd ones change the two over; the signs are bit 1 of q + 1 and of q.
  const Bits odd = uint64_t(0) - ((v >> 31) & uint64_t(1));
  const Bits sbits = A::bits(s), cbits = A::bits(c), change = (sbits ^ cbits) & odd;
  const uint64_t sign = uint64_t(1) << 63;
  cosine = A::real(cbits ^ change ^ (((v + (uint64_t(1) << 31)) << 31) & sign));
  sine = A::real(sbits ^ change ^ ((v << 31) & sign));
}

// Two standard normal numbers from two random words.
template <class A>
AWASE_NORMAL void box_muller(typename A::Bits x0, typename A::Bits x1, typename A::Real &n0, typename A::Real &n1) {
  const typename A::Real radius = A::root(minus_two_log<A>(x0));
  typename A::Real cosine, sine;
  cos_sin<A>(x1, cosine, sine);
  n0 = A::mul(radius, cosine);
  n1 = A::mul(radius, sine);
}

// Numbers 4 block .. 4 block + 3 of a sample. `block` has 32 bits; all three may differ from lane to lane.
template <class A>
AWASE_NORMAL void normal4(uint64_t seed, typename A::Bits sample, typename A::Bits block, typename A::Real &n0,
                          typename A::Real &n1, typename A::Real &n2, typename A::Real &n3) {
  typename A::Bits c0 = block, c1 = (block & uint64_t(0)) | uint64_t(kNormalStream), c2 = sample, c3 = sample >> 32;
  philox<A>(c0, c1, c2, c3, seed);
  box_muller<A>(c0, c1, n0, n1);
  box_muller<A>(c2, c3, n2, n3);
}

#undef AWASE_NORMAL

}  // namespace normal
}  // namespace
}  // namespace awase
