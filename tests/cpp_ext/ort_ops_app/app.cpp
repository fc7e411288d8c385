// The custom operators where there is a GPU, without one: ONNX Runtime and the kernels are fakes that write down what
// they are asked. Only the fakes' functions of ONNX Runtime are there, all of them as old as 1.20: a call of any other
// is a call of NULL. Prints a line for each operator and for each call of a kernel.
#include <onnxruntime_c_api.h>

#include <cstdio>
#include <string>
#include <vector>

#include "awase/awase.h"

// ---- the kernels ----

static void print(const char *name, const awase_tensor *t) {
  if (!t) return void(printf(" %s=NULL", name));
  printf(" %s=%d@%d[", name, t->dtype, t->device);
  for (int k = 0; k < t->rank; ++k)
    printf("%s%lld:%lld", k ? "," : "", (long long)t->shape[k], (long long)t->strides[k]);
  printf("]");
}

static awase_status answer = AWASE_OK;

extern "C" {
const char *awase_last_error(void) { return "what: got this, expected that"; }

awase_status awase_blend(const awase_tensor *za, const awase_tensor *zb, const awase_tensor *weights,
                         const awase_tensor *parts, const awase_tensor *out, void *stream) {
  printf("blend");
  print("za", za), print("zb", zb), print("weights", weights), print("parts", parts), print("out", out);
  printf(" stream=%zx\n", reinterpret_cast<size_t>(stream));
  return answer;
}

awase_status awase_gram(const awase_tensor *f, const awase_tensor *out, void *stream) {
  printf("gram");
  print("f", f), print("out", out);
  printf(" stream=%zx\n", reinterpret_cast<size_t>(stream));
  return answer;
}

awase_status awase_ssim(const awase_tensor *a, const awase_tensor *b, awase_window window, double data_range,
                        const awase_tensor *scores, const awase_tensor *, const awase_tensor *, void *stream) {
  printf("ssim");
  print("a", a), print("b", b), print("scores", scores);
  printf(" window=%d data_range=%g stream=%zx\n", window, data_range, reinterpret_cast<size_t>(stream));
  return answer;
}
}

// ---- ONNX Runtime ----

struct OrtStatus {
  OrtErrorCode code;
  std::string message;
};
struct OrtTensorTypeAndShapeInfo {
  ONNXTensorElementDataType type;
  std::vector<int64_t> shape;
};
struct OrtMemoryInfo {
  OrtMemoryInfoDeviceType kind;
  int device;
};
struct OrtValue {
  OrtTensorTypeAndShapeInfo info;
  OrtMemoryInfo place;
};
struct OrtKernelContext {
  std::vector<OrtValue> inputs;
  OrtValue output;
};
struct OrtCustomOpDomain {
  std::vector<const OrtCustomOp *> ops;
};
struct OrtSessionOptions {
  std::vector<OrtCustomOpDomain *> domains;
};

static OrtApi api;
static char memory[64];

// Each field takes a function of its own type; the lambdas below are turned into it.
static void fill() {
  api.CreateStatus = [](OrtErrorCode code, const char *text) noexcept -> OrtStatus * {
    return new OrtStatus{code, text};
  };
  api.GetErrorCode = [](const OrtStatus *status) noexcept { return status->code; };
  api.GetErrorMessage = [](const OrtStatus *status) noexcept { return status->message.c_str(); };
  api.ReleaseStatus = [](OrtStatus *status) noexcept { delete status; };
  api.CreateCustomOpDomain = [](const char *name, OrtCustomOpDomain **out) noexcept -> OrtStatus * {
    printf("domain %s\n", name);
    *out = new OrtCustomOpDomain;
    return nullptr;
  };
  api.ReleaseCustomOpDomain = [](OrtCustomOpDomain *domain) noexcept { delete domain; };
  api.CustomOpDomain_Add = [](OrtCustomOpDomain *domain, const OrtCustomOp *op) noexcept -> OrtStatus * {
    domain->ops.push_back(op);
    return nullptr;
  };
  api.AddCustomOpDomain = [](OrtSessionOptions *options, OrtCustomOpDomain *domain) noexcept -> OrtStatus * {
    options->domains.push_back(domain);
    return nullptr;
  };
  api.KernelInfoGetAttribute_float = [](const OrtKernelInfo *, const char *, float *out) noexcept -> OrtStatus * {
    *out = 2;
    return nullptr;
  };
  api.KernelInfoGetAttribute_string = [](const OrtKernelInfo *, const char *name, char *out,
                                         size_t *size) noexcept -> OrtStatus * {
    const std::string value = std::string(name) == "window" ? "gaussian" : "NHWC";
    if (out) value.copy(out, value.size()), out[value.size()] = 0;
    *size = value.size() + 1;
    return nullptr;
  };
  api.KernelInfoGetAttributeArray_int64 = [](const OrtKernelInfo *, const char *, int64_t *out,
                                             size_t *size) noexcept -> OrtStatus * {
    *size = 2;
    if (out) out[0] = 1, out[1] = 4;
    return nullptr;
  };
  api.KernelContext_GetInput = [](const OrtKernelContext *context, size_t index,
                                  const OrtValue **out) noexcept -> OrtStatus * {
    *out = &context->inputs[index];
    return nullptr;
  };
  api.KernelContext_GetOutput = [](OrtKernelContext *context, size_t, const int64_t *sizes, size_t rank,
                                   OrtValue **out) noexcept -> OrtStatus * {
    context->output.info.shape.assign(sizes, sizes + rank);
    *out = &context->output;
    return nullptr;
  };
  api.KernelContext_GetGPUComputeStream = [](const OrtKernelContext *, void **out) noexcept -> OrtStatus * {
    *out = reinterpret_cast<void *>(0xabc);
    return nullptr;
  };
  api.GetTensorTypeAndShape = [](const OrtValue *value, OrtTensorTypeAndShapeInfo **out) noexcept -> OrtStatus * {
    *out = new OrtTensorTypeAndShapeInfo(value->info);
    return nullptr;
  };
  api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo *info) noexcept { delete info; };
  api.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo *info,
                                ONNXTensorElementDataType *out) noexcept -> OrtStatus * {
    *out = info->type;
    return nullptr;
  };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo *info, size_t *out) noexcept -> OrtStatus * {
    *out = info->shape.size();
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t count) noexcept -> OrtStatus * {
    for (size_t k = 0; k < count; ++k) out[k] = info->shape[k];
    return nullptr;
  };
  api.GetTensorMemoryInfo = [](const OrtValue *value, const OrtMemoryInfo **out) noexcept -> OrtStatus * {
    *out = &value->place;
    return nullptr;
  };
  api.MemoryInfoGetDeviceType = [](const OrtMemoryInfo *place, OrtMemoryInfoDeviceType *out) noexcept {
    *out = place->kind;
  };
  api.MemoryInfoGetId = [](const OrtMemoryInfo *place, int *out) noexcept -> OrtStatus * {
    *out = place->device;
    return nullptr;
  };
  api.GetTensorMutableData = [](OrtValue *, void **out) noexcept -> OrtStatus * {
    *out = memory;
    return nullptr;
  };
}

extern "C" OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

int main() {
  fill();
  static uint32_t newest = 19;
  static const OrtApiBase base = {
      [](uint32_t version) noexcept -> const OrtApi * { return version <= newest ? &api : nullptr; },
      []() noexcept { return "1.19.2"; }};
  OrtSessionOptions options;
  OrtStatus *status = RegisterCustomOps(&options, &base);
  printf("%d %s\n", status->code, status->message.c_str());
  delete status;
  newest = 20;
  for (int k = 0; k < 2; ++k)
    if (RegisterCustomOps(&options, &base)) return 1;
  if (options.domains.size() != 2 || options.domains[0] != options.domains[1]) return 1;

  for (const OrtCustomOp *op : options.domains[0]->ops) {
    const std::string name = op->GetName(op), provider = op->GetExecutionProviderType(op);
    printf("%s %s inputs=%zu api=%u", name.c_str(), provider.c_str(), op->GetInputTypeCount(op), op->version);
    for (size_t k = 0; k < op->GetInputTypeCount(op); ++k) printf(" memory=%d", op->GetInputMemoryType(op, k));
    printf("\n");
    const OrtMemoryInfo gpu = {OrtMemoryInfoDeviceType_GPU, 3}, host = {OrtMemoryInfoDeviceType_CPU, 0};
    const OrtMemoryInfo place = provider == "CUDAExecutionProvider" ? gpu : host;
    const auto half = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, one = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    OrtKernelContext context;
    if (name == "LatentBlend") {
      const OrtValue z = {{one, {1, 5, 4, 4}}, place};
      context.inputs = {z, z, {{one, {6, 2}}, host}};  // the weights may be in host memory everywhere
    } else if (name == "Gram") {
      context.inputs = {{{one, {2, 3, 4, 5}}, place}};
    } else {
      const OrtValue images = {{half, {2, 16, 17, 3}}, place};
      context.inputs = {images, images};
    }
    void *kernel = nullptr;
    if (op->CreateKernelV2(op, &api, nullptr, &kernel)) return 1;
    for (awase_status given : {AWASE_OK, AWASE_INVALID, AWASE_CUDA_FAILED}) {
      answer = given;
      status = op->KernelComputeV2(kernel, &context);
      if (!status != !given) return 1;
      if (status) printf("%d %s\n", status->code, status->message.c_str());
      delete status;
    }
    op->KernelDestroy(kernel);
  }
}
