// The kernels from C++: identical images score 1; images too small are an error, not an exception.
#include <awase/awase.h>

#include <cstdio>
#include <vector>

int main() {
  const int64_t n = 3, c = 3, size = 32;
  std::vector<uint8_t> images(n * c * size * size);
  for (size_t k = 0; k < images.size(); ++k) images[k] = uint8_t(k * 37);
  std::vector<double> scores(n);
  awase_tensor a{images.data(), AWASE_UINT8, AWASE_CPU, 4, {n, c, size, size}, {c * size * size, size * size, size, 1}};
  awase_tensor out{scores.data(), AWASE_FLOAT64, AWASE_CPU, 1, {n}, {1}};
  if (awase_ssim(&a, &a, AWASE_GAUSSIAN, 255, &out, nullptr, nullptr, nullptr) != AWASE_OK) return 1;
  std::printf("%g %g %g\n", scores[0], scores[1], scores[2]);
  a.shape[2] = 6;
  const awase_status status = awase_ssim(&a, &a, AWASE_UNIFORM, 255, &out, nullptr, nullptr, nullptr);
  std::printf("%d %s\n", status, awase_last_error());
  return 0;
}
