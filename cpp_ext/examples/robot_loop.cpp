// A robot's control loop: at a fixed rate it imagines what the camera sees and the joint angles that go with it.
//
//   robot_loop BUNDLE [--rate 100] [--seconds 5] [--seed 0] [--threads 1] [--device cpu]
//
// Pairs are made ahead by the stream's thread, so a tick only takes the next one. Talk goes to stderr, about once a
// second; a JSON report goes to stdout at the end (or after Ctrl-C): how late the loop woke, when its pair was there.
#include <awase/engine.hpp>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <numeric>

#include "arguments.h"

namespace {

volatile std::sig_atomic_t stopped = 0;

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

// An absolute time, so that the time a tick takes does not add to the period.
void sleep_until(int64_t ns) {
  const timespec t{time_t(ns / 1000000000), long(ns % 1000000000)};
  while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
  }
}

void print_quantiles(const char *name, std::vector<int64_t> ns) {
  std::sort(ns.begin(), ns.end());
  const auto us = [&](double q) { return double(ns[size_t(q * double(ns.size() - 1))]) / 1000; };
  std::printf(" \"%s\": {\"p50\": %.1f, \"p95\": %.1f, \"max\": %.1f},\n", name, us(.5), us(.95), us(1));
}

// The vector's components by name: one line of text for people, or the members of a JSON object.
std::string joints_text(const awase_port &port, const std::vector<float> &joints, bool json) {
  std::string text;
  for (size_t k = 0; k < joints.size(); ++k) {
    const std::string name = port.names ? port.names[k] : std::string(port.name) + "_" + std::to_string(k);
    char value[32];
    std::snprintf(value, sizeof(value), json ? "%.9g" : "%+.2f", double(joints[k]));
    text += (k ? ", " : "") + (json ? quoted(name) + ": " : name + " ") + value;
  }
  return text;
}

double mean(const uint8_t *pixels, const awase_port &port) {
  const int64_t size = port.shape[0] * port.shape[1] * port.shape[2];
  return double(std::accumulate(pixels, pixels + size, int64_t(0))) / double(size);
}

int loop(const Arguments &arguments) {
  const double rate = arguments.number("rate", 100, .1, 10000);
  const auto ticks = int64_t(arguments.number("seconds", 5, 0, 1e6) * rate);
  if (ticks < 1) throw std::invalid_argument("--seconds is less than one period of --rate");
  awase::SessionOptions options;
  options.device = arguments.text("device", "cpu");
  options.threads = int32_t(arguments.whole("threads", 1, 1, 1024));

  const awase::Bundle bundle(arguments.bundle());
  const awase::Session session(bundle, options);
  const awase_graph &graph = session.graph();
  const int32_t image = awase::first_of(graph.outputs, graph.output_count, AWASE_IMAGE);
  const int32_t vector = awase::first_of(graph.outputs, graph.output_count, AWASE_VECTOR);
  if (image < 0 || vector < 0) throw std::invalid_argument("the bundle's graph gives no pair of image and joints");
  const awase_port &port = graph.outputs[vector];
  awase_stream_options samples{};
  samples.seed = uint64_t(arguments.whole("seed", 0, 0, int64_t(1) << 53));
  samples.batch = 1;
  awase::Stream stream(session, samples);

  const auto period = int64_t(1e9 / rate);
  std::vector<int64_t> woke, ready;  // after the tick's time, in ns
  std::vector<float> joints(size_t(port.shape[0]));
  int64_t missed = 0, told = 0, due = now_ns() + period;
  while (int64_t(woke.size()) < ticks && !stopped) {
    sleep_until(due);
    if (stopped) break;
    woke.push_back(now_ns() - due);

    const awase::Batch pair = stream.next();
    const uint8_t *camera = pair.data<uint8_t>(image);  // [H, W, C]: what the robot expects to see
    for (size_t k = 0; k < joints.size(); ++k) {
      // The engine holds vectors within the manifest's limits. A robot's last line of defence is its own all the same.
      const float angle = pair.data<float>(vector)[k];
      if (!std::isfinite(angle)) continue;  // the last one stands
      joints[k] = port.limits ? std::clamp(angle, float(port.limits[k][0]), float(port.limits[k][1])) : angle;
    }
    // Here a robot would be given the joints, and `camera` be compared with what its camera sees.
    ready.push_back(now_ns() - due);
    if (now_ns() - told >= 1000000000) {
      told = now_ns();
      std::fprintf(stderr, "%s [%s]: %s; mean of %s: %.0f\n", port.name, port.unit,
                   joints_text(port, joints, false).c_str(), graph.outputs[image].name,
                   mean(camera, graph.outputs[image]));
    }

    due += period;
    while (due < now_ns()) due += period, ++missed;  // a tick that is past is left out, not made up for
  }

  if (woke.empty()) return 0;
  std::printf("{\n \"bundle\": %s,\n \"rate_hz\": %g,\n \"ticks\": %zu,\n \"missed\": %lld,\n",
              quoted(bundle.name()).c_str(), rate, woke.size(), static_cast<long long>(missed));
  print_quantiles("woke_late_us", woke);
  print_quantiles("pair_ready_us", ready);
  std::printf(" \"last\": {\"sample\": %zu, \"unit\": %s, %s: {%s}}\n}\n", woke.size() - 1, quoted(port.unit).c_str(),
              quoted(port.name).c_str(), joints_text(port, joints, true).c_str());
  return 0;
}

}  // namespace

int main(int count, char **given) {
  std::signal(SIGINT, [](int) { stopped = 1; });
  try {
    return loop(Arguments(count, given, {"rate", "seconds", "seed", "threads", "device"}));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
