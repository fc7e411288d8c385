// A graphics program's loop: RGBA frames of an animation between random faces, arms or whatever the bundle makes.
//
//   graphics_loop BUNDLE [--frames 300] [--keys 8] [--steps 30] [--batch 8] [--seed 0] [--threads 0] [--device cpu]
//                        [--raw FILE | --out DIR]
//   graphics_loop BUNDLE --raw - | ffmpeg -f rawvideo -pix_fmt rgba -s 80x80 -r 30 -i - animation.mp4
//
// Frames are drawn into a buffer of the program's own. --raw writes them one after another ("-": to stdout), --out as
// PAM files; without either they are only counted. The JSON report goes to stdout, or to stderr where frames go there.
#include <awase/engine.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "animation.h"
#include "arguments.h"

namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE *)>;

File open_file(const std::string &path) {
  if (path == "-") return File(stdout, [](std::FILE *) { return 0; });  // not ours to close
  File file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file) throw std::invalid_argument(path + " cannot be written");
  return file;
}

void write(std::FILE *file, const uint8_t *bytes, size_t size) {
  if (std::fwrite(bytes, 1, size, file) != size || std::fflush(file) != 0)
    throw std::runtime_error("a frame cannot be written");
}

int loop(const Arguments &arguments) {
  const int64_t frames = arguments.whole("frames", 300, 1, 1000000000);
  const int64_t batch = arguments.whole("batch", 8, 1, 4096);
  const std::string raw = arguments.text("raw", ""), folder = arguments.text("out", "");
  if (!raw.empty() && !folder.empty()) throw std::invalid_argument("--raw and --out: give one of them");
  awase::SessionOptions options;
  options.device = arguments.text("device", "cpu");
  options.threads = int32_t(arguments.whole("threads", 0, 0, 1024));

  const awase::Bundle bundle(arguments.bundle());
  awase::Session session(bundle, options);
  const awase_graph &graph = session.graph();
  const int32_t image = animated_image(graph);
  const int64_t height = graph.outputs[image].shape[1], width = graph.outputs[image].shape[2];
  const int64_t dim = graph.inputs[0].shape[0];
  Animation animation(uint64_t(arguments.whole("seed", 0, 0, int64_t(1) << 53)), arguments.whole("keys", 8, 2, 100000),
                      arguments.whole("steps", 30, 1, 100000), dim);
  File file(nullptr, std::fclose);
  if (!raw.empty()) file = open_file(raw);

  // All memory is the program's and is made once: the graph's outputs, and the frames.
  std::vector<float> z;
  std::vector<std::vector<float>> made(size_t(graph.output_count));
  std::vector<uint8_t> rgba(size_t(batch * height * width * 4));
  const auto start = std::chrono::steady_clock::now();
  for (int64_t first = 0; first < frames; first += batch) {
    const int64_t count = std::min(batch, frames - first);
    animation.latents(first, count, z);
    std::vector<awase_tensor> outputs;
    for (int32_t k = 0; k < graph.output_count; ++k) {
      std::vector<int64_t> shape{count};
      shape.insert(shape.end(), graph.outputs[k].shape, graph.outputs[k].shape + graph.outputs[k].rank);
      size_t size = 1;
      for (int64_t axis : shape) size *= size_t(axis);
      made[size_t(k)].resize(std::max(made[size_t(k)].size(), size));
      outputs.push_back(awase::tensor(made[size_t(k)], shape));
    }
    session.run({awase::tensor(z, {count, dim})}, outputs);
    awase::pack(outputs[size_t(image)], awase::tensor(rgba, {count, height, width, 4}));

    const size_t size = size_t(height * width * 4);
    if (file) write(file.get(), rgba.data(), size * size_t(count));
    for (int64_t k = 0; k < count && !folder.empty(); ++k) {
      char name[32];
      std::snprintf(name, sizeof(name), "/%06lld.pam", static_cast<long long>(first + k));
      const File frame = open_file(folder + name);
      std::fprintf(frame.get(), "P7\nWIDTH %lld\nHEIGHT %lld\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n",
                   static_cast<long long>(width), static_cast<long long>(height));
      write(frame.get(), &rgba[size * size_t(k)], size);
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::fprintf(raw == "-" ? stderr : stdout,
               "{\n \"bundle\": %s,\n \"frames\": %lld,\n \"width\": %lld,\n \"height\": %lld,\n \"seconds\": %.3f,\n"
               " \"frames_per_second\": %.1f\n}\n",
               quoted(bundle.name()).c_str(), static_cast<long long>(frames), static_cast<long long>(width),
               static_cast<long long>(height), seconds, double(frames) / seconds);
  return 0;
}

}  // namespace

int main(int count, char **given) {
  try {
    return loop(Arguments(count, given,
                          {"frames", "keys", "steps", "batch", "seed", "threads", "device", "raw", "out"}));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
