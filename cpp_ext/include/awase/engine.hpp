// The engine for C++17: engine.h with classes that close what they open and exceptions for what goes wrong.
//
//   awase::Bundle bundle("bundles/first");
//   awase::Session session(bundle);
//   std::vector<float> z(16), image(3 * 80 * 80), joints(10);
//   awase::noise(seed, 0, awase::tensor(z, {1, 16}));
//   session.run({awase::tensor(z, {1, 16})}, {awase::tensor(image, {1, 3, 80, 80}), awase::tensor(joints, {1, 10})});
#ifndef AWASE_ENGINE_HPP
#define AWASE_ENGINE_HPP

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "awase/engine.h"

namespace awase {

// What a failed call says, and its status.
class Error : public std::runtime_error {
 public:
  Error(awase_status status, const char *message) : std::runtime_error(message), status_(status) {}
  awase_status status() const { return status_; }

 private:
  awase_status status_;
};

namespace detail {

inline void kernels(awase_status status) {
  if (status != AWASE_OK) throw Error(status, awase_last_error());
}

inline void engine(awase_status status) {
  if (status != AWASE_OK) throw Error(status, awase_engine_last_error());
}

template <class Handle, void (*close)(Handle *)>
struct Close {
  void operator()(Handle *handle) const { close(handle); }
};

template <class Handle, void (*close)(Handle *)>
using Owner = std::unique_ptr<Handle, Close<Handle, close>>;

template <class T>
constexpr awase_dtype dtype() {
  if constexpr (std::is_same_v<T, uint8_t>) return AWASE_UINT8;
  else if constexpr (std::is_same_v<T, float>) return AWASE_FLOAT32;
  else if constexpr (std::is_same_v<T, double>) return AWASE_FLOAT64;
  else {
    static_assert(std::is_same_v<T, int64_t>, "tensors hold uint8_t, float, double or int64_t");
    return AWASE_INT64;
  }
}

}  // namespace detail

// ---- tensors ----

// The caller's memory as a tensor, rows one after another. `device`: AWASE_CPU, or a CUDA device's number.
template <class T>
awase_tensor tensor(T *data, const std::vector<int64_t> &shape, int32_t device = AWASE_CPU) {
  if (shape.size() > AWASE_MAX_RANK) throw Error(AWASE_INVALID, "tensor: more axes than AWASE_MAX_RANK");
  using Value = std::remove_const_t<T>;
  awase_tensor t{const_cast<Value *>(data), detail::dtype<Value>(), device, int32_t(shape.size()), {}, {}};
  int64_t step = 1;
  for (size_t k = shape.size(); k-- > 0; step *= shape[k]) t.shape[k] = shape[k], t.strides[k] = step;
  return t;
}

// The same over a vector, which must be large enough.
template <class T>
awase_tensor tensor(std::vector<T> &values, const std::vector<int64_t> &shape) {
  int64_t size = 1;
  for (int64_t axis : shape) size *= axis;
  if (size < 0 || uint64_t(size) > values.size()) throw Error(AWASE_INVALID, "tensor: the vector is too small for it");
  return tensor(values.data(), shape);
}

// ---- kernels; see awase.h ----

inline void noise(uint64_t seed, uint64_t first, const awase_tensor &out, void *stream = nullptr) {
  detail::kernels(awase_noise(seed, first, &out, stream));
}

inline void blend(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights,
                  const awase_tensor &parts, const awase_tensor &out, void *stream = nullptr) {
  detail::kernels(awase_blend(&za, &zb, &weights, &parts, &out, stream));
}

inline void pack(const awase_tensor &x, const awase_tensor &out, void *stream = nullptr) {
  detail::kernels(awase_pack(&x, &out, stream));
}

inline void unpack(const awase_tensor &u, const awase_tensor &out, void *stream = nullptr) {
  detail::kernels(awase_unpack(&u, &out, stream));
}

inline void gram(const awase_tensor &f, const awase_tensor &out, void *stream = nullptr) {
  detail::kernels(awase_gram(&f, &out, stream));
}

inline void ssim(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range,
                 const awase_tensor &scores, void *stream = nullptr) {
  detail::kernels(awase_ssim(&a, &b, window, data_range, &scores, nullptr, nullptr, stream));
}

// ---- bundles ----

class Bundle {
 public:
  explicit Bundle(const std::string &folder) {
    awase_bundle *bundle = nullptr;
    detail::engine(awase_bundle_open(folder.c_str(), &bundle));
    owner_.reset(bundle);
  }

  std::string name() const { return awase_bundle_name(owner_.get()); }

  // The graphs, in the bundle's memory.
  std::vector<awase_graph> graphs() const {
    const awase_graph *graphs = nullptr;
    const int32_t count = awase_bundle_graphs(owner_.get(), &graphs);
    return {graphs, graphs + count};
  }

  const awase_bundle *get() const { return owner_.get(); }

 private:
  detail::Owner<awase_bundle, awase_bundle_close> owner_;
};

// The index of the first output (or input) of a kind; -1 where there is none.
inline int32_t first_of(const awase_port *ports, int32_t count, awase_kind kind) {
  for (int32_t k = 0; k < count; ++k)
    if (ports[k].kind == kind) return k;
  return -1;
}

// ---- sessions ----

struct SessionOptions {
  std::string graph;  // "": the bundle's first
  std::string precision = "fp32", device = "cpu";
  int32_t threads = 0;      // 0: ONNX Runtime's choice
  std::string onnxruntime;  // its shared library; "": looked for
  std::string tensorrt;     // the same of TensorRT or TensorRT-RTX
};

class Session {
 public:
  explicit Session(const Bundle &bundle, const SessionOptions &options = {}) {
    const auto text = [](const std::string &value) { return value.empty() ? nullptr : value.c_str(); };
    const awase_session_options chosen{text(options.graph), text(options.precision), text(options.device),
                                       options.threads, text(options.onnxruntime), text(options.tensorrt)};
    awase_session *session = nullptr;
    detail::engine(awase_session_open(bundle.get(), &chosen, &session));
    owner_.reset(session);
  }

  const awase_graph &graph() const { return *awase_session_graph(owner_.get()); }

  void run(const std::vector<awase_tensor> &inputs, const std::vector<awase_tensor> &outputs) {
    detail::engine(awase_session_run(owner_.get(), inputs.data(), int32_t(inputs.size()), outputs.data(),
                                     int32_t(outputs.size())));
  }

  void generate(uint64_t seed, uint64_t first, const std::vector<awase_tensor> &outputs) {
    detail::engine(
        awase_session_generate(owner_.get(), seed, first, outputs.data(), int32_t(outputs.size())));
  }

  awase_session *get() const { return owner_.get(); }

 private:
  detail::Owner<awase_session, awase_session_close> owner_;
};

// ---- streams ----

// Samples in the stream's memory: valid until the next but one is asked for.
struct Batch {
  int64_t count = 0;
  const awase_tensor *outputs = nullptr;
  explicit operator bool() const { return count > 0; }

  // The values of output k: uint8_t of an image, float of a vector.
  template <class T>
  const T *data(int32_t k) const {
    if (outputs[k].dtype != detail::dtype<T>()) throw Error(AWASE_INVALID, "Batch::data: the output has another dtype");
    return static_cast<const T *>(outputs[k].data);
  }
};

class Stream {
 public:
  explicit Stream(const Session &session, const awase_stream_options &options = {}) {
    awase_stream *stream = nullptr;
    detail::engine(awase_stream_open(session.get(), &options, &stream));
    owner_.reset(stream);
  }

  Batch next() {
    Batch batch;
    detail::engine(awase_stream_next(owner_.get(), &batch.outputs, &batch.count));
    return batch;
  }

 private:
  detail::Owner<awase_stream, awase_stream_close> owner_;
};

}  // namespace awase

#endif  // AWASE_ENGINE_HPP
