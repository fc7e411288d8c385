// What the custom operators have in common: ONNX Runtime's values seen as awase's tensors, failures as its statuses.
//
// A kernel is a struct of this form, from which Op<Kernel> makes the operator:
//
//   struct Kernel : Computes<Kernel> {
//     static constexpr const char *kName;                    // of the operator
//     static constexpr ElementType kInputs[], kOutput;       // UNDEFINED: any
//     explicit Kernel(Ort::ConstKernelInfo info);            // reads the attributes; may throw
//     void compute(const Call &call) const;                  // in several threads at once; may throw
//     static Shape infer(const std::vector<Shape> &inputs);  // of the output; empty where it cannot be told
//   };
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <exception>
#include <string>
#include <vector>

#include "awase/awase.h"

namespace awase::ort {

// Of ONNX Runtime 1.20: what is asked for is there in every later one too, whatever the headers' version.
constexpr uint32_t kApi = 20;

using ElementType = ONNXTensorElementDataType;
using Shape = Ort::ShapeInferContext::Shape;

[[noreturn]] inline void refuse(const std::string &message) { throw Ort::Exception(message, ORT_INVALID_ARGUMENT); }

// Runs `body` and gives what it throws as a status that begins with the operator's name.
template <class Body>
OrtStatusPtr guarded(const char *op, Body body) noexcept {
  OrtErrorCode code = ORT_FAIL;
  std::string message = std::string(op) + ": ";
  try {
    body();
    return nullptr;
  } catch (const Ort::Exception &error) {
    code = error.GetOrtErrorCode();
    message += error.what();
  } catch (const std::exception &error) {
    message += error.what();
  }
  return Ort::GetApi().CreateStatus(code, message.c_str());
}

// The attribute, which must be there: none has a default.
template <class Value>
Value attribute(Ort::ConstKernelInfo info, const char *name, const char *expected) {
  try {
    return info.GetAttribute<Value>(name);
  } catch (const Ort::Exception &) {
    refuse(std::string(name) + ": got no such attribute, expected " + expected);
  }
}

// One run of a kernel.
class Call {
 public:
  explicit Call(OrtKernelContext *context) : context_(context) {}

  // Input number `index` as it lies in memory. `name` is for messages.
  awase_tensor input(size_t index, const char *name) const {
    const Ort::ConstValue value = context_.GetInput(index);
    const auto info = value.GetTensorTypeAndShapeInfo();
    const auto place = value.GetTensorMemoryInfo();
    const bool on_gpu = place.GetDeviceType() == OrtMemoryInfoDeviceType_GPU;
    const int32_t device = on_gpu ? place.GetDeviceId() : AWASE_CPU;
    void *data = nullptr;  // ConstValue::GetTensorRawData would call what came after kApi
    OrtValue *writable = const_cast<OrtValue *>(static_cast<const OrtValue *>(value));
    Ort::ThrowOnError(Ort::GetApi().GetTensorMutableData(writable, &data));
    return tensor(data, dtype_of(info.GetElementType(), name), device, info.GetShape());
  }

  // The output's memory, where `like` is.
  awase_tensor output(const std::vector<int64_t> &shape, awase_dtype dtype, const awase_tensor &like) const {
    return tensor(context_.GetOutput(0, shape).GetTensorMutableRawData(), dtype, like.device, shape);
  }

  // The cudaStream_t to work on; on a CPU it means nothing.
  void *stream() const { return context_.GetGPUComputeStream(); }

 private:
  static awase_tensor tensor(void *data, awase_dtype dtype, int32_t device, const std::vector<int64_t> &shape) {
    awase_tensor t{};
    t.data = data, t.dtype = dtype, t.device = device, t.rank = int32_t(shape.size());
    int64_t stride = 1;
    for (int k = t.rank <= AWASE_MAX_RANK ? t.rank - 1 : -1; k >= 0; --k) {  // awase refuses more axes
      t.shape[k] = shape[size_t(k)], t.strides[k] = stride;
      stride *= t.shape[k];
    }
    return t;
  }

  static awase_dtype dtype_of(ElementType type, const char *name) {
    switch (type) {
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return AWASE_UINT8;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return AWASE_FLOAT16;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return AWASE_FLOAT32;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return AWASE_FLOAT64;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return AWASE_INT64;
      default: refuse(std::string(name) + ": got ONNX element type " + std::to_string(int(type)) + ", expected " +
                      "uint8 (2), float (1) or, on CUDA, float16 (10)");
    }
  }

  Ort::KernelContext context_;
};

// Throws what awase refused.
inline void check(awase_status status) {
  if (status == AWASE_OK) return;
  throw Ort::Exception(awase_last_error(), status == AWASE_INVALID ? ORT_INVALID_ARGUMENT : ORT_RUNTIME_EXCEPTION);
}

template <class Kernel>
struct Computes {
  OrtStatusPtr ComputeV2(OrtKernelContext *context) const noexcept {
    return guarded(Kernel::kName, [&] { static_cast<const Kernel *>(this)->compute(Call(context)); });
  }
};

// Tells ONNX Runtime what the output will be. (ShapeInferContext::SetOutputShape calls a symbolic size -2, which newer
// ones refuse.)
inline void set_output_shape(OrtShapeInferContext *context, const Shape &shape, ElementType type) {
  if (shape.empty()) return;
  std::vector<int64_t> sizes;
  std::vector<const char *> names;
  for (const auto &size : shape) {
    if (size.IsInt() && size.AsInt() < 0) return;  // neither number nor name
    sizes.push_back(size.IsInt() ? size.AsInt() : -1);
    names.push_back(size.IsInt() ? "" : size.AsSym());
  }
  const OrtApi &api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo *made = nullptr;
  Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&made));
  const Ort::TensorTypeAndShapeInfo info(made);
  Ort::ThrowOnError(api.SetTensorElementType(made, type));
  Ort::ThrowOnError(api.SetDimensions(made, sizes.data(), sizes.size()));
  Ort::ThrowOnError(api.SetSymbolicDimensions(made, names.data(), names.size()));
  Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(context, 0, made));
}

template <class Kernel>
struct Op : Ort::CustomOpBase<Op<Kernel>, Kernel, true> {
  // For "CPUExecutionProvider" or "CUDAExecutionProvider".
  explicit Op(const char *provider) : provider_(provider) {
    OrtCustomOp::version = kApi;
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp *, OrtShapeInferContext *given) -> OrtStatusPtr {
      return guarded(Kernel::kName, [&] {
        Ort::ShapeInferContext context(&Ort::GetApi(), given);
        std::vector<Shape> inputs;
        for (size_t k = 0; k < context.GetInputCount(); ++k) inputs.push_back(context.GetInputShape(k));
        set_output_shape(given, Kernel::infer(inputs), Kernel::kOutput);
      });
    };
  }

  OrtStatusPtr CreateKernelV2(const OrtApi &, const OrtKernelInfo *info, void **kernel) const noexcept {
    return guarded(Kernel::kName, [&] { *kernel = new Kernel(Ort::ConstKernelInfo(info)); });
  }
  const char *GetName() const { return Kernel::kName; }
  const char *GetExecutionProviderType() const { return provider_; }
  size_t GetInputTypeCount() const { return sizeof(Kernel::kInputs) / sizeof(Kernel::kInputs[0]); }
  ElementType GetInputType(size_t index) const { return Kernel::kInputs[index]; }
  size_t GetOutputTypeCount() const { return 1; }
  ElementType GetOutputType(size_t) const { return Kernel::kOutput; }

 private:
  const char *provider_;
};

}  // namespace awase::ort
