// The Python module cpp_ext._kernels: the C interface with Python's arrays. The public face is cpp_ext/kernels.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "awase/awase.h"
#include "bindings/tensor.h"

namespace nb = nanobind;

namespace {

void check(awase_status status) {
  if (status == AWASE_OK) return;
  const char *message = awase_last_error();
  if (status == AWASE_INVALID) throw nb::value_error(message);
  PyErr_SetString(status == AWASE_OUT_OF_MEMORY ? PyExc_MemoryError : PyExc_RuntimeError, message);
  throw nb::python_error();
}

// Runs the call without Python's lock: other Python threads go on meanwhile.
template <class Call>
void run(Call call) {
  awase_status status;
  {
    nb::gil_scoped_release released;
    status = call();
  }
  check(status);
}

constexpr int kFromNhwc[4] = {0, 3, 1, 2};  // [N, H, W, C] seen as [N, C, H, W]

void *stream_of(uintptr_t stream) { return reinterpret_cast<void *>(stream); }

awase_window window_of(const std::string &name) {
  if (name == "uniform") return AWASE_UNIFORM;
  if (name == "gaussian") return AWASE_GAUSSIAN;
  throw nb::value_error(("window: got '" + name + "', expected 'uniform' or 'gaussian'").c_str());
}

}  // namespace

NB_MODULE(_kernels, m) {
  nb::set_leak_warnings(false);

  m.def("ssim", [](nb::handle a, nb::handle b, const std::string &window, double data_range, bool nhwc,
                   nb::handle scores, nb::handle channels, nb::handle map, uintptr_t stream) {
    Tensor ta("a", a), tb("b", b), ts("out", scores, Access::write), tc("out", channels, Access::write),
        tm("out", map, Access::write);
    if (nhwc)
      for (Tensor *t : {&ta, &tb, &tm}) t->permuted(kFromNhwc);
    const awase_window w = window_of(window);
    run([&] { return awase_ssim(ta.get(), tb.get(), w, data_range, ts.get(), tc.get(), tm.get(), stream_of(stream)); });
  }, nb::arg("a"), nb::arg("b"), nb::arg("window"), nb::arg("data_range"), nb::arg("nhwc"), nb::arg("scores").none(),
     nb::arg("channels").none(), nb::arg("map").none(), nb::arg("stream"));

  m.def("ssim_pairs", [](nb::handle a, nb::handle b, nb::handle i, nb::handle j, const std::string &window,
                         double data_range, bool nhwc, nb::handle scores, uintptr_t stream) {
    Tensor ta("a", a), tb("b", b), ti("i", i), tj("j", j), ts("out", scores, Access::write);
    if (nhwc)
      for (Tensor *t : {&ta, &tb}) t->permuted(kFromNhwc);
    const awase_window w = window_of(window);
    run([&] {
      return awase_ssim_pairs(ta.get(), tb.get(), ti.get(), tj.get(), w, data_range, ts.get(), stream_of(stream));
    });
  });

  m.def("gram", [](nb::handle f, nb::handle out, uintptr_t stream) {
    Tensor tf("f", f), to("out", out, Access::write);
    tf.with_last_merged("f");
    run([&] { return awase_gram(tf.get(), to.get(), stream_of(stream)); });
  });

  m.def("gram_backward", [](nb::handle f, nb::handle g, nb::handle out, uintptr_t stream) {
    Tensor tf("f", f), tg("g", g), to("out", out, Access::write);
    tf.with_last_merged("f");
    to.with_last_merged("out");
    run([&] { return awase_gram_backward(tf.get(), tg.get(), to.get(), stream_of(stream)); });
  });

  m.def("blend", [](nb::handle za, nb::handle zb, nb::handle weights, nb::handle parts, nb::handle out, uintptr_t stream) {
    Tensor ta("za", za), tb("zb", zb), tw("weights", weights), tp("parts", parts), to("out", out, Access::write);
    ta.with_first_axis(3);
    tb.with_first_axis(3);
    tw.with_first_axis(1);
    run([&] { return awase_blend(ta.get(), tb.get(), tw.get(), tp.get(), to.get(), stream_of(stream)); });
  });

  m.def("noise", [](uint64_t seed, uint64_t first, nb::handle out, uintptr_t stream) {
    Tensor to("out", out, Access::write);
    run([&] { return awase_noise(seed, first, to.get(), stream_of(stream)); });
  });

  m.def("pack", [](nb::handle x, nb::handle out, uintptr_t stream) {
    Tensor tx("x", x), to("out", out, Access::write);
    run([&] { return awase_pack(tx.get(), to.get(), stream_of(stream)); });
  });

  m.def("unpack", [](nb::handle u, nb::handle out, uintptr_t stream) {
    Tensor tu("u", u), to("out", out, Access::write);
    run([&] { return awase_unpack(tu.get(), to.get(), stream_of(stream)); });
  });

  m.def("isa", [] { return std::string(awase_isa()); });
  m.def("set_isa", [](const std::string &name) { check(awase_set_isa(name.c_str())); });
  m.def("threads", [] { return awase_threads(); });
  m.def("set_threads", [](int count) { check(awase_set_threads(count)); });
  m.def("cuda_devices", [] {
    int count = 0;
    check(awase_cuda_devices(&count));
    return count;
  });
}
