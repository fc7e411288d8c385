// graphics_loop with frames that never leave the GPU: ONNX Runtime's CUDA provider writes the image to device memory,
// awase_pack turns it into RGBA right in an OpenGL buffer that CUDA has mapped, and OpenGL makes a texture of it.
//
//   graphics_loop_gl BUNDLE [--frames 300] [--keys 8] [--steps 30] [--seed 0] [--gpu 0]
//
// Without a window (EGL on the GPU's own device), so that it runs on a server. It has been compiled, and not yet run.
#define GL_GLEXT_PROTOTYPES
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
#include <GL/glext.h>

#include <awase/engine.hpp>
#include <cuda_gl_interop.h>
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>

#include "animation.h"
#include "arguments.h"

namespace {

void cuda(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

void need(bool works, const char *what) {
  if (!works) throw std::runtime_error(std::string("OpenGL: ") + what + " does not work");
}

// An OpenGL context on the EGL device that is this CUDA device.
class Context {
 public:
  explicit Context(int gpu) {
    const auto query_devices = reinterpret_cast<PFNEGLQUERYDEVICESEXTPROC>(eglGetProcAddress("eglQueryDevicesEXT"));
    const auto query_attribute =
        reinterpret_cast<PFNEGLQUERYDEVICEATTRIBEXTPROC>(eglGetProcAddress("eglQueryDeviceAttribEXT"));
    const auto get_display =
        reinterpret_cast<PFNEGLGETPLATFORMDISPLAYEXTPROC>(eglGetProcAddress("eglGetPlatformDisplayEXT"));
    need(query_devices && query_attribute && get_display, "listing EGL devices");
    EGLDeviceEXT devices[32];
    EGLint count = 0;
    need(query_devices(32, devices, &count), "listing EGL devices");
    for (EGLint k = 0; k < count; ++k) {
      EGLAttrib number = -1;
      if (query_attribute(devices[k], EGL_CUDA_DEVICE_NV, &number) && number == gpu)
        display_ = get_display(EGL_PLATFORM_DEVICE_EXT, devices[k], nullptr);
    }
    need(display_ != EGL_NO_DISPLAY && eglInitialize(display_, nullptr, nullptr), "EGL on the CUDA device");
    const EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT, EGL_NONE};
    EGLConfig config = nullptr;
    need(eglBindAPI(EGL_OPENGL_API) && eglChooseConfig(display_, wanted, &config, 1, &count) && count == 1,
         "an EGL configuration");
    context_ = eglCreateContext(display_, config, EGL_NO_CONTEXT, nullptr);
    need(context_ != EGL_NO_CONTEXT && eglMakeCurrent(display_, EGL_NO_SURFACE, EGL_NO_SURFACE, context_),
         "a context without a surface");
  }
  Context(const Context &) = delete;
  ~Context() {
    eglMakeCurrent(display_, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    eglDestroyContext(display_, context_);
    eglTerminate(display_);
  }

 private:
  EGLDisplay display_ = EGL_NO_DISPLAY;
  EGLContext context_ = EGL_NO_CONTEXT;
};

// One RGBA frame in an OpenGL buffer, which CUDA may write while it is mapped, and a texture made from it.
class Frame {
 public:
  Frame(int64_t height, int64_t width) : height_(GLsizei(height)), width_(GLsizei(width)) {
    glGenBuffers(1, &buffer_);
    glBindBuffer(GL_PIXEL_UNPACK_BUFFER, buffer_);
    glBufferData(GL_PIXEL_UNPACK_BUFFER, GLsizeiptr(height * width * 4), nullptr, GL_STREAM_DRAW);
    glGenTextures(1, &texture_);
    glBindTexture(GL_TEXTURE_2D, texture_);
    glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA8, width_, height_, 0, GL_RGBA, GL_UNSIGNED_BYTE, nullptr);
    need(glGetError() == GL_NO_ERROR, "a buffer and its texture");
    cuda(cudaGraphicsGLRegisterBuffer(&resource_, buffer_, cudaGraphicsRegisterFlagsWriteDiscard));
  }
  Frame(const Frame &) = delete;
  ~Frame() {
    cudaGraphicsUnregisterResource(resource_);
    glDeleteTextures(1, &texture_);
    glDeleteBuffers(1, &buffer_);
  }

  // `image`: float32 [1, 3, H, W] on the device.
  void draw(const awase_tensor &image) {
    cuda(cudaGraphicsMapResources(1, &resource_, nullptr));
    void *pixels = nullptr;
    size_t size = 0;
    cuda(cudaGraphicsResourceGetMappedPointer(&pixels, &size, resource_));
    awase::pack(image, awase::tensor(static_cast<uint8_t *>(pixels), {1, height_, width_, 4}, image.device));
    cuda(cudaGraphicsUnmapResources(1, &resource_, nullptr));  // OpenGL waits for the default stream
    glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, width_, height_, GL_RGBA, GL_UNSIGNED_BYTE, nullptr);
  }

 private:
  const GLsizei height_, width_;
  GLuint buffer_ = 0, texture_ = 0;
  cudaGraphicsResource *resource_ = nullptr;
};

struct Free {
  void operator()(float *memory) const { cudaFree(memory); }
};

int loop(const Arguments &arguments) {
  const int64_t frames = arguments.whole("frames", 300, 1, 1000000000);
  const int gpu = int(arguments.whole("gpu", 0, 0, 1000));
  cuda(cudaSetDevice(gpu));
  awase::SessionOptions options;
  options.device = "cuda:" + std::to_string(gpu);
  const awase::Bundle bundle(arguments.bundle());
  awase::Session session(bundle, options);
  const awase_graph &graph = session.graph();
  const int32_t image = animated_image(graph);
  const int64_t dim = graph.inputs[0].shape[0];
  Animation animation(uint64_t(arguments.whole("seed", 0, 0, int64_t(1) << 53)), arguments.whole("keys", 8, 2, 100000),
                      arguments.whole("steps", 30, 1, 100000), dim);

  std::vector<std::unique_ptr<float, Free>> memory;
  std::vector<awase_tensor> outputs;
  for (int32_t k = 0; k < graph.output_count; ++k) {
    const awase_port &port = graph.outputs[k];
    std::vector<int64_t> shape{1};
    shape.insert(shape.end(), port.shape, port.shape + port.rank);
    size_t size = sizeof(float);
    for (int64_t axis : shape) size *= size_t(axis);
    void *pointer = nullptr;
    cuda(cudaMalloc(&pointer, size));
    memory.emplace_back(static_cast<float *>(pointer));
    outputs.push_back(awase::tensor(memory.back().get(), shape, gpu));
  }
  const Context context(gpu);
  Frame frame(graph.outputs[image].shape[1], graph.outputs[image].shape[2]);
  std::vector<float> z;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t k = 0; k < frames; ++k) {
    animation.latents(k, 1, z);
    session.run({awase::tensor(z, {1, dim})}, outputs);
    frame.draw(outputs[size_t(image)]);
  }
  glFinish();
  need(glGetError() == GL_NO_ERROR, "making the texture");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("{\n \"bundle\": %s,\n \"frames\": %lld,\n \"seconds\": %.3f,\n \"frames_per_second\": %.1f\n}\n",
              quoted(bundle.name()).c_str(), static_cast<long long>(frames), seconds, double(frames) / seconds);
  return 0;
}

}  // namespace

int main(int count, char **given) {
  try {
    return loop(Arguments(count, given, {"frames", "keys", "steps", "seed", "gpu"}));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
