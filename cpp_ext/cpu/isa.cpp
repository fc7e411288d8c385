#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "src/error.h"

namespace awase::cpu {
namespace {

struct Named {
  const char *name;
  Isa isa;
  bool (*here)();
};

// Best first.
const Named kAll[] = {
#if defined(__x86_64__)
    // __builtin_cpu_supports also asks whether the operating system keeps the wide registers.
    {"avx512", Isa::avx512,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("fma");
     }},
    {"avx2", Isa::avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {"baseline", Isa::baseline, [] { return true; }},
#elif defined(__aarch64__)
    {"neon", Isa::neon, [] { return true; }},
#else
    {"baseline", Isa::baseline, [] { return true; }},
#endif
};

const Named &find(const std::string &name, const char *source) {
  std::string known;
  for (const Named &one : kAll) {
    if (!one.here()) continue;
    if (name.empty() || name == one.name) return one;
    known += (known.empty() ? "" : ", ") + std::string(one.name);
  }
  throw Error(AWASE_INVALID, std::string(source) + ": got '" + name + "', expected one of " + known);
}

std::atomic<const Named *> current{nullptr};

const Named &chosen() {
  const Named *one = current.load(std::memory_order_acquire);
  if (!one) {
    const char *asked = std::getenv("AWASE_ISA");
    one = &find(asked ? asked : "", "the environment variable AWASE_ISA");
    current.store(one, std::memory_order_release);
  }
  return *one;
}

}  // namespace

Isa isa() { return chosen().isa; }
const char *isa_name() { return chosen().name; }
void set_isa(const char *name) { current.store(&find(name ? name : "", "isa"), std::memory_order_release); }

}  // namespace awase::cpu
