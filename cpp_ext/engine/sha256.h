#pragma once

#include <cstddef>
#include <string>

namespace awase::engine {

// SHA-256 (FIPS 180-4) of `size` bytes, in lower-case hexadecimal.
std::string sha256(const void *data, size_t size);

}  // namespace awase::engine
