// A session: one graph of a bundle, opened; arguments are checked here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/bundle.h"
#include "engine/model.h"

namespace awase::engine {

// Memory between the graph and the samples, to be used again.
struct Scratch {
  std::vector<float> noise;
  std::vector<std::vector<float>> images;  // one for each output, empty for vectors
};

class Session {
 public:
  Session(const Bundle &bundle, const awase_session_options &options);

  const awase_graph &description() const { return description_.graphs().front(); }
  const Graph &graph() const { return graphs_.front(); }

  void run(const awase_tensor *inputs, int32_t input_count, const awase_tensor *outputs, int32_t output_count) const;

  // Throws where the graph is not one noise input to images and vectors.
  void check_generates() const;

  void generate(uint64_t seed, uint64_t first, const awase_tensor *outputs, int32_t output_count,
                Scratch &scratch) const;

 private:
  int64_t check(const char *side, const std::vector<Port> &ports, const awase_tensor *tensors, int32_t count) const;

  std::string what_;
  std::vector<Graph> graphs_;  // one
  Description description_;
  Device device_;
  std::unique_ptr<const Model> model_;
  // For each output, lowest and highest float32 within each component's limits; empty without limits.
  std::vector<std::vector<std::array<float, 2>>> limits_;
};

// A tensor of rows one after another in host memory.
awase_tensor contiguous(void *data, awase_dtype dtype, const std::vector<int64_t> &shape);

}  // namespace awase::engine
