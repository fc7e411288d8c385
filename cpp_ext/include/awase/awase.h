/* Awase kernels: the C interface. Usable from C (C99) and C++; find_package(awase), link awase::awase.
 *
 * Every function returns an awase_status and never throws, aborts or prints. After anything but AWASE_OK,
 * awase_last_error() of the same thread says in one line which argument, what came and what was expected.
 * Outputs are the caller's memory; after an error they hold undefined values.
 *
 * An operation runs where its tensors live. On a CPU it has finished when the function returns, and uses up to
 * awase_threads() threads. On a CUDA device it is enqueued on `stream` (a cudaStream_t; NULL is the default stream):
 * inputs must stay alive and outputs untouched until the stream has passed it; host arguments (indices, parts, weights
 * in host memory) are read before the function returns. All functions may be called from several threads at once.
 */
#ifndef AWASE_AWASE_H
#define AWASE_AWASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(AWASE_BUILDING)
#define AWASE_API __attribute__((visibility("default")))
#else
#define AWASE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define AWASE_VERSION 1 /* of this interface; awase_version() is the library's */
#define AWASE_MAX_RANK 4

typedef enum awase_status {
  AWASE_OK = 0,
  AWASE_INVALID = 1,       /* an argument cannot be used */
  AWASE_UNAVAILABLE = 2,   /* no CUDA in this build, no driver, or no such device */
  AWASE_OUT_OF_MEMORY = 3, /* of the host or of the device */
  AWASE_CUDA_FAILED = 4,   /* CUDA reported an error; the message is CUDA's */
  AWASE_INTERNAL = 5       /* a defect of this library */
} awase_status;

typedef enum awase_dtype {
  AWASE_UINT8 = 0,
  AWASE_FLOAT16 = 1,
  AWASE_FLOAT32 = 2,
  AWASE_FLOAT64 = 3,
  AWASE_INT64 = 4
} awase_dtype;

typedef enum awase_window {
  AWASE_UNIFORM = 0, /* 7 x 7, sample covariance (scikit-image's default) */
  AWASE_GAUSSIAN = 1 /* 11 x 11, sigma 1.5, population covariance (Wang et al. 2004) */
} awase_window;

#define AWASE_CPU (-1) /* awase_tensor.device: this, or the number of a CUDA device */

/* Memory with a shape. Strides count elements, may be zero or negative (not zero in an output). */
typedef struct awase_tensor {
  void *data;
  int32_t dtype;  /* awase_dtype */
  int32_t device; /* AWASE_CPU, or a CUDA device's number */
  int32_t rank;   /* 0 to AWASE_MAX_RANK */
  int64_t shape[AWASE_MAX_RANK];
  int64_t strides[AWASE_MAX_RANK];
} awase_tensor;

/* ---- about this library and this machine ---- */

AWASE_API int awase_version(void);

/* The message of this thread's last failed call, in the library's memory; valid until this thread's next failure. */
AWASE_API const char *awase_last_error(void);

/* Instruction set in use: "avx512", "avx2", "neon" or "baseline" (what every CPU of this kind has). */
AWASE_API const char *awase_isa(void);
/* Use this one from now on (NULL or "": the best there is). The environment variable AWASE_ISA does the same. */
AWASE_API awase_status awase_set_isa(const char *name);

/* Most threads that a call uses: AWASE_THREADS or all cores that this process may use, whichever is less. */
AWASE_API int awase_threads(void);
/* From 1 to the cores that this process may use (more is cut down); 0: back to the default. */
AWASE_API awase_status awase_set_threads(int count);

/* Number of usable CUDA devices. AWASE_UNAVAILABLE (count 0) where there are none; the message says why. */
AWASE_API awase_status awase_cuda_devices(int *count);

/* The number of the CUDA device that `pointer` is memory of. AWASE_INVALID if it is none. */
AWASE_API awase_status awase_cuda_device_of(const void *pointer, int32_t *device);

/* ---- operations ---- */

/* SSIM of a[n] and b[n].
 *   a, b        [N, C, H, W], both uint8, both float32, or (CUDA) both float16; H, W >= the window
 *   data_range  white minus black, > 0
 *   scores      float64 [N], mean over channels and over the pixels whose window lies inside the image; or NULL
 *   channels    float64 [N, C], mean over those pixels; or NULL
 *   map         float32 [N, C, H - r, W - r], r = window - 1; or NULL */
AWASE_API awase_status awase_ssim(const awase_tensor *a, const awase_tensor *b, awase_window window, double data_range,
                                  const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map,
                                  void *stream);

/* SSIM of a[i[m]] and b[j[m]]. On a CPU each image's own moments are computed once, however many pairs it is in (on a
 * GPU it costs less to compute them again than to read them).
 *   a [N, C, H, W], b [K, C, H, W]  as in awase_ssim
 *   i, j    int64 [M], in host memory, 0 <= i < N, 0 <= j < K
 *   scores  float64 [M] */
AWASE_API awase_status awase_ssim_pairs(const awase_tensor *a, const awase_tensor *b, const awase_tensor *i,
                                        const awase_tensor *j, awase_window window, double data_range,
                                        const awase_tensor *scores, void *stream);

/* Gram matrices: out[n] = f[n] f[n]^T / (C K).   f float32 [N, C, K], out float32 [N, C, C] (exactly symmetric) */
AWASE_API awase_status awase_gram(const awase_tensor *f, const awase_tensor *out, void *stream);

/* Gradient of awase_gram: out[n] = (g[n] + g[n]^T) f[n] / (C K).   f, out float32 [N, C, K], g float32 [N, C, C] */
AWASE_API awase_status awase_gram_backward(const awase_tensor *f, const awase_tensor *g, const awase_tensor *out,
                                           void *stream);

/* Latents blended part by part: out[l, c] = w[l, p(c)] za[., c] + (1 - w[l, p(c)]) zb[., c]. A weight of exactly 1 gives
 * za's finite values bit for bit, 0 zb's; weights outside [0, 1] extrapolate.
 *   za, zb   float32 [N, C, H, W] with N = L, or N = 1: one pair under L weights (the grid form)
 *   weights  float32 [L, P] or [1, P], in host memory or where za is
 *   parts    int64 [P], in host memory: channels of each part, in order; their sum is C
 *   out      float32 [L, C, H, W]; may be za or zb itself where N = L */
AWASE_API awase_status awase_blend(const awase_tensor *za, const awase_tensor *zb, const awase_tensor *weights,
                                   const awase_tensor *parts, const awase_tensor *out, void *stream);

/* Standard normal noise: out[k] depends on (seed, first + k) alone.   out float32 [count, dim]
 * Philox 4x32-10, key = seed, counter = (block, 0, sample low, sample high); Box-Muller in binary64 on
 * u = (x + 1/2) 2^-32 with this library's own log, sin and cos, made of correctly rounded operations in a fixed order:
 * the same bits from every instruction set and from every GPU, within 1 ulp of the exact transform. */
AWASE_API awase_status awase_noise(uint64_t seed, uint64_t first, const awase_tensor *out, void *stream);

/* Frames: out = round((x + 1) * 127.5), halves to even, saturated to 0..255; NaN gives 0.
 *   x    float32 (or, CUDA, float16) [N, C, H, W]
 *   out  uint8 [N, H, W, C]; or, for x of 3 channels, [N, H, W, 4]: RGBA with an alpha of 255 */
AWASE_API awase_status awase_pack(const awase_tensor *x, const awase_tensor *out, void *stream);

/* The way back: out = u / 127.5 - 1.   u uint8 [N, H, W, C], out float32 [N, C, H, W] */
AWASE_API awase_status awase_unpack(const awase_tensor *u, const awase_tensor *out, void *stream);

#ifdef __cplusplus
}
#endif

#endif /* AWASE_AWASE_H */
