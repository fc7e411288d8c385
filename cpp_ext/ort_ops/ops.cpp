// The kernels as ONNX Runtime's custom operators, domain "awase", version 1, for its CPU and CUDA execution providers:
// whole metric or fusion graphs run inside one session. Every attribute must be given.
//
//   LatentBlend(za, zb, weights) -> z
//       za, zb   float [N, C, H, W]; weights float [L, P] or [P]; z float [N, C, H, W], or [L, C, H, W] where N is 1
//       parts    ints: the channels of each part, in order; their sum is C
//   Gram(f) -> g
//       f        float [N, C, H, W] or [N, C, K]; g float [N, C, C]
//   SSIM(a, b) -> scores
//       a, b     images, both uint8, both float or (CUDA) both float16; scores double [N]
//       window   string: "uniform" or "gaussian"; data_range float: white minus black; layout string: "NCHW" or "NHWC"
//
// What they compute, and what they refuse, is awase.h's awase_blend, awase_gram and awase_ssim.
#include <memory>
#include <utility>

#include "ort_ops/op.h"

using namespace awase::ort;

namespace {

constexpr ElementType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

struct LatentBlend : Computes<LatentBlend> {
  static constexpr const char *kName = "LatentBlend";
  static constexpr ElementType kInputs[] = {kFloat, kFloat, kFloat}, kOutput = kFloat;

  explicit LatentBlend(Ort::ConstKernelInfo info) try : parts_(info.GetAttributes<int64_t>("parts")) {
  } catch (const Ort::Exception &) {
    refuse("parts: got no such attribute, expected the channels of each part, ints");
  }

  void compute(const Call &call) const {
    const awase_tensor za = call.input(0, "za"), zb = call.input(1, "zb");
    awase_tensor weights = call.input(2, "weights"), parts{};
    if (weights.rank == 1) {
      weights.rank = 2;
      weights.shape[1] = weights.shape[0], weights.strides[1] = weights.strides[0];
      weights.shape[0] = 1;
    }
    parts.data = const_cast<int64_t *>(parts_.data());
    parts.dtype = AWASE_INT64, parts.device = AWASE_CPU, parts.rank = 1;
    parts.shape[0] = int64_t(parts_.size()), parts.strides[0] = 1;
    if (za.rank != 4 || weights.rank != 2) return check(awase_blend(&za, &zb, &weights, &parts, nullptr, nullptr));
    const int64_t count = za.shape[0] == 1 ? weights.shape[0] : za.shape[0];
    const awase_tensor out = call.output({count, za.shape[1], za.shape[2], za.shape[3]}, AWASE_FLOAT32, za);
    check(awase_blend(&za, &zb, &weights, &parts, &out, call.stream()));
  }

  static Shape infer(const std::vector<Shape> &inputs) {
    const Shape &za = inputs[0], &weights = inputs[2];
    if (za.size() != 4 || weights.empty() || weights.size() > 2) return {};
    if (weights.size() == 1 || weights[0] == 1 || weights[0] == za[0]) return za;
    if (!za[0].IsInt()) return {};  // N or, should that be 1, L
    return {za[0].AsInt() == 1 ? weights[0] : za[0], za[1], za[2], za[3]};
  }

 private:
  const std::vector<int64_t> parts_;
};

struct Gram : Computes<Gram> {
  static constexpr const char *kName = "Gram";
  static constexpr ElementType kInputs[] = {kFloat}, kOutput = kFloat;

  explicit Gram(Ort::ConstKernelInfo) {}

  void compute(const Call &call) const {
    awase_tensor f = call.input(0, "f");
    if (f.rank == 4) f.rank = 3, f.shape[2] *= f.shape[3], f.strides[2] = 1;
    if (f.rank != 3) return check(awase_gram(&f, nullptr, nullptr));
    const awase_tensor out = call.output({f.shape[0], f.shape[1], f.shape[1]}, AWASE_FLOAT32, f);
    check(awase_gram(&f, &out, call.stream()));
  }

  static Shape infer(const std::vector<Shape> &inputs) {
    const Shape &f = inputs[0];
    return f.size() == 3 || f.size() == 4 ? Shape{f[0], f[1], f[1]} : Shape{};
  }
};

struct Ssim : Computes<Ssim> {
  static constexpr const char *kName = "SSIM";
  static constexpr ElementType kAny = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  static constexpr ElementType kInputs[] = {kAny, kAny}, kOutput = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;

  explicit Ssim(Ort::ConstKernelInfo info)
      : data_range_(attribute<float>(info, "data_range", "white minus black, a float (255.0, say)")) {
    const std::string window = attribute<std::string>(info, "window", "'uniform' or 'gaussian'");
    const std::string layout = attribute<std::string>(info, "layout", "'NCHW' or 'NHWC'");
    if (window != "uniform" && window != "gaussian")
      refuse("window: got '" + window + "', expected 'uniform' or 'gaussian'");
    if (layout != "NCHW" && layout != "NHWC") refuse("layout: got '" + layout + "', expected 'NCHW' or 'NHWC'");
    window_ = window == "gaussian" ? AWASE_GAUSSIAN : AWASE_UNIFORM;
    nhwc_ = layout == "NHWC";
  }

  void compute(const Call &call) const {
    const awase_tensor a = images(call, 0, "a"), b = images(call, 1, "b");
    if (a.rank != 4) return check(awase_ssim(&a, &b, window_, data_range_, nullptr, nullptr, nullptr, nullptr));
    const awase_tensor scores = call.output({a.shape[0]}, AWASE_FLOAT64, a);
    check(awase_ssim(&a, &b, window_, data_range_, &scores, nullptr, nullptr, call.stream()));
  }

  static Shape infer(const std::vector<Shape> &inputs) {
    return inputs[0].size() == 4 ? Shape{inputs[0][0]} : Shape{};
  }

 private:
  // Seen as [N, C, H, W].
  awase_tensor images(const Call &call, size_t index, const char *name) const {
    awase_tensor t = call.input(index, name);
    if (!nhwc_ || t.rank != 4) return t;
    for (int64_t *axes : {t.shape, t.strides}) {
      const int64_t height = axes[1], width = axes[2];
      axes[1] = axes[3], axes[2] = height, axes[3] = width;
    }
    return t;
  }

  double data_range_;
  awase_window window_;
  bool nhwc_;
};

// Every session of the process shares the operators. They are never destroyed: ONNX Runtime may be gone before that.
OrtCustomOpDomain *domain() {
  static OrtCustomOpDomain *const made = [] {
    Ort::CustomOpDomain domain("awase");
    std::vector<const char *> providers = {"CPUExecutionProvider"};
#if defined(AWASE_WITH_CUDA)
    providers.push_back("CUDAExecutionProvider");
#endif
    for (const char *provider : providers) {
      domain.Add(std::make_unique<Op<LatentBlend>>(provider).release());
      domain.Add(std::make_unique<Op<Gram>>(provider).release());
      domain.Add(std::make_unique<Op<Ssim>>(provider).release());
    }
    return domain.release();
  }();
  return made;
}

}  // namespace

// ONNX Runtime looks for this name: SessionOptions.register_custom_ops_library (C: RegisterCustomOpsLibrary_V2).
extern "C" __attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                               const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(kApi);
  if (!api) {
    const std::string message = std::string("awase_ort_ops: got ONNX Runtime ") + base->GetVersionString() +
                                ", expected 1." + std::to_string(kApi) + " or later";
    return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, message.c_str());
  }
  static const bool ready = (Ort::InitApi(api), true);
  (void)ready;
  return guarded("awase_ort_ops", [&] { Ort::ThrowOnError(api->AddCustomOpDomain(options, domain())); });
}
