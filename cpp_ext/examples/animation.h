// A walk through a generator's noise that ends where it began: from key to key, slow at each.
#pragma once

#include <awase/engine.hpp>

#include <vector>

class Animation {
 public:
  // `keys`: how many samples of `seed` it passes; `steps`: frames from one to the next; `dim`: of the noise.
  Animation(uint64_t seed, int64_t keys, int64_t steps, int64_t dim)
      : keys_(keys), steps_(steps), dim_(dim), noise_(size_t(keys * dim)) {
    awase::noise(seed, 0, awase::tensor(noise_, {keys, dim}));
  }

  // Noise of frames first … first + count - 1 to z, float32 [count, dim].
  void latents(int64_t first, int64_t count, std::vector<float> &z) {
    from_.clear(), to_.clear(), weights_.clear();
    for (int64_t frame = first; frame < first + count; ++frame) {
      const int64_t key = frame / steps_ % keys_, next = (key + 1) % keys_;
      const double t = double(frame % steps_) / double(steps_);
      from_.insert(from_.end(), &noise_[size_t(key * dim_)], &noise_[size_t(key * dim_)] + dim_);
      to_.insert(to_.end(), &noise_[size_t(next * dim_)], &noise_[size_t(next * dim_)] + dim_);
      weights_.push_back(float(1 - t * t * (3 - 2 * t)));
    }
    z.resize(size_t(count * dim_));
    const std::vector<int64_t> shape{count, dim_, 1, 1};  // one part of all channels
    awase::blend(awase::tensor(from_, shape), awase::tensor(to_, shape), awase::tensor(weights_, {count, 1}),
                 awase::tensor(&dim_, {1}), awase::tensor(z, shape));
  }

 private:
  const int64_t keys_, steps_, dim_;
  std::vector<float> noise_, from_, to_, weights_;
};

// The index of the image that a graph with one noise input gives. Throws awase::Error where there is none.
inline int32_t animated_image(const awase_graph &graph) {
  const int32_t image = awase::first_of(graph.outputs, graph.output_count, AWASE_IMAGE);
  if (graph.input_count != 1 || graph.inputs[0].kind != AWASE_NOISE || image < 0 || graph.outputs[image].shape[0] != 3)
    throw awase::Error(AWASE_INVALID, "the bundle's graph makes no RGB images from one noise input");
  return image;
}
