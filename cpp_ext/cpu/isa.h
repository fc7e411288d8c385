// Which instruction set runs. Files of kernels are compiled once for each, in a namespace of its name.
#pragma once

namespace awase::cpu {

enum class Isa { baseline, neon, avx2, avx512 };

Isa isa();
const char *isa_name();
void set_isa(const char *name);  // nullptr or "": the best there is. Throws AWASE_INVALID

}  // namespace awase::cpu

// AWASE_DISPATCH(ssim, arguments) calls the ssim of the instruction set in use.
#if defined(__x86_64__)
#define AWASE_EACH_ISA(declare) \
  namespace baseline { declare } \
  namespace avx2 { declare } \
  namespace avx512 { declare }
#define AWASE_DISPATCH(function, ...)                                    \
  do {                                                                   \
    switch (::awase::cpu::isa()) {                                       \
      case ::awase::cpu::Isa::avx512: return avx512::function(__VA_ARGS__); \
      case ::awase::cpu::Isa::avx2: return avx2::function(__VA_ARGS__);  \
      default: return baseline::function(__VA_ARGS__);                   \
    }                                                                    \
  } while (0)
#elif defined(__aarch64__)
#define AWASE_EACH_ISA(declare) \
  namespace neon { declare }
#define AWASE_DISPATCH(function, ...) return neon::function(__VA_ARGS__)
#else
#define AWASE_EACH_ISA(declare) \
  namespace baseline { declare }
#define AWASE_DISPATCH(function, ...) return baseline::function(__VA_ARGS__)
#endif
