/* The kernels from C: prints noise, its frame and a Gram matrix, and what errors look like. */
#include <awase/awase.h>
#include <stdio.h>

static awase_tensor tensor(void *data, int dtype, int rank, int64_t n, int64_t c, int64_t h, int64_t w) {
  awase_tensor t = {data, dtype, AWASE_CPU, rank, {n, c, h, w}, {c * h * w, h * w, w, 1}};
  return t;
}

int main(void) {
  float noise[24], gram[4];
  uint8_t frame[24];
  awase_tensor z = {noise, AWASE_FLOAT32, AWASE_CPU, 2, {2, 12, 0, 0}, {12, 1, 0, 0}};
  if (awase_noise(7, 40, &z, NULL) != AWASE_OK) return 1;
  awase_tensor x = tensor(noise, AWASE_FLOAT32, 4, 1, 3, 2, 4);
  awase_tensor u = tensor(frame, AWASE_UINT8, 4, 1, 2, 4, 3);
  if (awase_pack(&x, &u, NULL) != AWASE_OK) return 1;
  awase_tensor f = {noise, AWASE_FLOAT32, AWASE_CPU, 3, {1, 2, 12, 0}, {24, 12, 1, 0}};
  awase_tensor g = {gram, AWASE_FLOAT32, AWASE_CPU, 3, {1, 2, 2, 0}, {4, 2, 1, 0}};
  if (awase_gram(&f, &g, NULL) != AWASE_OK) return 1;
  for (int k = 0; k < 24; ++k) printf("%.9g ", noise[k]);
  for (int k = 0; k < 24; ++k) printf("%d ", frame[k]);
  for (int k = 0; k < 4; ++k) printf("%.9g ", gram[k]);
  awase_status status = awase_pack(&x, &x, NULL);
  printf("\n%d %s\n", status, awase_last_error());
  status = awase_noise(7, 40, NULL, NULL);
  printf("%d %s\n", status, awase_last_error());
  printf("%d %d %d\n", awase_version(), awase_threads() > 0, awase_isa()[0] != 0);
  return 0;
}
