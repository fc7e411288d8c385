// A stand-in for TensorRT's NvInfer.h: the few names that the engine uses, as NVIDIA documents them for TensorRT 10 and
// TensorRT-RTX 1. The real classes are laid out otherwise: what is compiled with this runs with nvinfer.cpp alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

#ifdef STAND_IN_RTX
#define TRT_MAJOR_RTX 1
#define NV_TENSORRT_MAJOR 1
#define NV_TENSORRT_VERSION 10701
#else
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_VERSION 101300
#endif

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kINT64 = 8 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

class Dims64 {
 public:
  static constexpr int32_t MAX_DIMS{8};
  int32_t nbDims;
  int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, AsciiChar const *message) noexcept = 0;
  ILogger() = default;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() noexcept = default;
  virtual bool setInputShape(char const *name, Dims const &dims) noexcept = 0;
  virtual bool setTensorAddress(char const *name, void *data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

#ifdef STAND_IN_RTX
enum class DynamicShapesKernelSpecializationStrategy : int32_t { kLAZY = 0, kEAGER = 1, kNONE = 2 };

class IRuntimeConfig {
 public:
  virtual ~IRuntimeConfig() noexcept = default;
  virtual void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy strategy) noexcept = 0;
};
#endif

class ICudaEngine {
 public:
  virtual ~ICudaEngine() noexcept = default;
  virtual int32_t getNbIOTensors() const noexcept = 0;
  virtual char const *getIOTensorName(int32_t index) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(char const *name) const noexcept = 0;
  virtual DataType getTensorDataType(char const *name) const noexcept = 0;
  virtual Dims getTensorShape(char const *name) const noexcept = 0;
  virtual Dims getProfileShape(char const *name, int32_t profile, OptProfileSelector select) const noexcept = 0;
#ifdef STAND_IN_RTX
  virtual IRuntimeConfig *createRuntimeConfig() noexcept = 0;
  virtual IExecutionContext *createExecutionContext(IRuntimeConfig *config) noexcept = 0;
#else
  virtual IExecutionContext *createExecutionContext() noexcept = 0;
#endif
};

class IRuntime {
 public:
  virtual ~IRuntime() noexcept = default;
  virtual ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1
