/* Awase's engine: bundles opened, run and streamed from C and C++. find_package(awase), link awase::engine; awase.h's
 * kernels come with it. engine.hpp is the same for C++ with classes and exceptions.
 *
 * As in awase.h, functions return an awase_status and never throw, abort or print; after anything but AWASE_OK,
 * awase_engine_last_error() of the same thread says in one line what came, what was expected and how to mend it.
 *
 * ONNX Runtime runs the graphs. Its shared library (1.17 or newer) is opened when the first session is, from the first
 * of these: the option `onnxruntime`, the environment variable AWASE_ONNXRUNTIME, one that the process has loaded
 * already, the loader's paths (libonnxruntime.so.1), the Python package `onnxruntime` installed beside this library.
 *
 * On the device "tensorrt" an engine of the bundle runs instead: one that was built from the graph's very file, by the
 * very version of the library, for the GPU's generation. The library of TensorRT or TensorRT-RTX, whichever this was
 * built for, is found likewise: the option `tensorrt`, AWASE_TENSORRT_LIBRARY, the loader's paths (libnvinfer.so.10,
 * libtensorrt_rtx.so.1), the Python package. That part is written against the documented interface and was compiled
 * and run with stand-ins for NVIDIA's headers and libraries only; it has never run on a GPU.
 *
 * Sessions may be run, and streams opened on them, from several threads at once. One stream is one thread's at a time.
 */
#ifndef AWASE_ENGINE_H
#define AWASE_ENGINE_H

#include "awase/awase.h"

#ifdef __cplusplus
extern "C" {
#endif

#define AWASE_ENGINE_VERSION 2 /* of this interface; awase_engine_version() is the library's */

AWASE_API int awase_engine_version(void);

/* The message of this thread's last failed call of this header, in the library's memory; valid until its next one. */
AWASE_API const char *awase_engine_last_error(void);

/* ---- bundles: what bundle.json says ---- */

typedef struct awase_bundle awase_bundle;

typedef enum awase_kind {
  AWASE_NOISE = 0,  /* drawn by awase_noise */
  AWASE_IMAGE = 1,  /* [C, H, W] */
  AWASE_VECTOR = 2, /* e.g. joint angles */
  AWASE_LATENT = 3  /* what an encoder makes of an image, [C, h, w], in parts: see awase_blend */
} awase_kind;

/* One input or output of a graph. The batch axis comes first, has any size and is not in `shape`. */
typedef struct awase_port {
  const char *name;
  int32_t kind;  /* awase_kind */
  int32_t dtype; /* awase_dtype */
  int32_t rank;  /* 1, or 3 for an image or a latent */
  int64_t shape[3];
  const char *unit;          /* of a vector's components, e.g. "rad"; "" without one */
  const char *const *names;  /* [shape[0]], of a vector's components, or NULL */
  const double (*limits)[2]; /* [shape[0]], lowest and highest value of each component in `unit`, or NULL */
  const double *range;       /* [2], lowest and highest value of all, e.g. an image's -1 and 1, or NULL */
  const int64_t *parts;      /* [part_count], channels of each part of a latent, in order, or NULL: awase_blend's */
  int32_t part_count;        /* 0 without parts */
} awase_port;

/* One graph. In whatever precision it is run, its inputs and outputs are these. */
typedef struct awase_graph {
  const char *name;
  int32_t input_count, output_count, precision_count;
  const awase_port *inputs, *outputs;
  const char *const *precisions; /* those the bundle has it in: "fp32", "fp16", "int8" */
} awase_graph;

/* Open a bundle's folder. Every file of it is verified against the manifest's sizes and SHA-256 sums; a manifest of
 * more than 16 MiB, a file name with a folder in it, a link, an unknown field or a newer schema is refused. What the
 * engine does not use (parity, robot, training, versions) is not looked into. */
AWASE_API awase_status awase_bundle_open(const char *folder, awase_bundle **bundle);

/* Sessions of it stay usable; what it described does not. NULL is ignored. */
AWASE_API void awase_bundle_close(awase_bundle *bundle);

AWASE_API const char *awase_bundle_name(const awase_bundle *bundle);

/* Number of graphs, and the graphs: the bundle's memory. */
AWASE_API int32_t awase_bundle_graphs(const awase_bundle *bundle, const awase_graph **graphs);

/* ---- sessions: one graph, opened ---- */

typedef struct awase_session awase_session;

/* All zeros: the bundle's first graph in fp32 on the CPU. */
typedef struct awase_session_options {
  const char *graph;       /* NULL: the bundle's first */
  const char *precision;   /* NULL: "fp32" */
  const char *device;      /* "cpu", "cuda[:N]" or "tensorrt[:N]"; NULL: "cpu". No GPU has run them yet */
  int32_t threads;         /* CPU threads for one run; 0: ONNX Runtime's choice */
  const char *onnxruntime; /* ONNX Runtime's shared library; NULL: it is looked for */
  const char *tensorrt;    /* TensorRT's or TensorRT-RTX's; NULL: it is looked for */
} awase_session_options;

/* The graph's file (or the engine's) is read and verified once more, and its inputs and outputs are compared with the
 * manifest's. A device that is not there, and one that no engine of the bundle is for, is AWASE_UNAVAILABLE: no other
 * takes its place. `options` NULL: all zeros. */
AWASE_API awase_status awase_session_open(const awase_bundle *bundle, const awase_session_options *options,
                                          awase_session **session);

/* Streams of it stay usable. NULL is ignored. */
AWASE_API void awase_session_close(awase_session *session);

/* The graph it runs, in the session's memory. */
AWASE_API const awase_graph *awase_session_graph(const awase_session *session);

/* Run the graph. `inputs` and `outputs` are arrays, one tensor for each of the graph's in their order, of the port's
 * dtype and [batch, shape...], the batch at least 1 and the same in all, rows one after another without gaps
 * (C-contiguous). The graph reads and writes the caller's memory without copies; on a GPU tensors may be in host memory
 * too, and are copied. What writes the inputs must have finished, and the run has when the function returns.
 *
 * TensorRT takes the batches of its engine's profile: larger ones are run in parts, others as the next larger power of
 * two, of which the caller sees its own samples. Memory of the GPU is used in place if the batch is one that is run and
 * the address a multiple of 256, and copied otherwise. Runs of several threads follow one another. */
AWASE_API awase_status awase_session_run(awase_session *session, const awase_tensor *inputs, int32_t input_count,
                                         const awase_tensor *outputs, int32_t output_count);

/* Samples first ... first + n - 1 of a seed, from a graph with one input of kind noise. `outputs` is one tensor in host
 * memory for each output: an image (of range [-1, 1]) uint8 [n, H, W, C], or [n, H, W, 4] with alpha 255 for C = 3; a
 * vector float32 [n, D], held within its limits. On the CPU, sample k of seed s is the same in any batch, and the same
 * that `runtime.load(bundle, device="cpu").generate` gives in Python. */
AWASE_API awase_status awase_session_generate(awase_session *session, uint64_t seed, uint64_t first,
                                              const awase_tensor *outputs, int32_t output_count);

/* ---- streams: samples, made ahead by a thread of their own ---- */

typedef struct awase_stream awase_stream;

typedef struct awase_stream_options {
  uint64_t seed;
  uint64_t first; /* number of the first sample */
  uint64_t count; /* samples in all; 0: without end */
  int64_t batch;  /* most samples that one call gives; 0: 64 */
} awase_stream_options;

/* The first batch is begun at once. `options` NULL: all zeros. */
AWASE_API awase_status awase_stream_open(awase_session *session, const awase_stream_options *options,
                                         awase_stream **stream);

/* The next batch: *outputs is one tensor for each output as in awase_session_generate (C channels), in the stream's
 * memory, valid until the next call but one; the next batch is made meanwhile. *count is the number of samples, and 0
 * after the last (with AWASE_OK). After an error the stream gives that error again. */
AWASE_API awase_status awase_stream_next(awase_stream *stream, const awase_tensor **outputs, int64_t *count);

/* Waits for the batch under way. NULL is ignored. */
AWASE_API void awase_stream_close(awase_stream *stream);

#ifdef __cplusplus
}
#endif

#endif /* AWASE_ENGINE_H */
