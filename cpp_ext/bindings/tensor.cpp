#include "bindings/tensor.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

namespace nb = nanobind;

namespace {

// DLPack's managed tensor (dlpack.h, before version 1).
struct Managed {
  nb::dlpack::dltensor tensor;
  void *context;
  void (*release)(Managed *);
};

enum DlDevice { kCpu = 1, kCuda = 2, kPinned = 3, kManaged = 13 };

constexpr const char *kDtypes = "uint8, float16, float32, float64 or int64";

[[noreturn]] void refuse(const char *name, const std::string &got, const std::string &expected) {
  throw nb::value_error((std::string(name) + ": got " + got + ", expected " + expected).c_str());
}

std::string text(nb::handle object) { return nb::cast<std::string>(nb::str(object)); }

int64_t item_size(int32_t dtype) {
  const int64_t sizes[] = {1, 2, 4, 8, 8};
  return sizes[dtype];
}

}  // namespace

Tensor::Tensor(const char *name, nb::handle array, Access access) {
  if (array.is_none()) return;
  present_ = true;
  if (nb::hasattr(array, "requires_grad") && nb::cast<bool>(nb::bool_(array.attr("requires_grad"))))
    refuse(name, "a tensor that requires grad", "plain data (gradients do not pass here: use .detach())");
  if (from_buffer(name, array, access) || from_dlpack(name, array) || from_cuda_array_interface(name, array, access))
    return;
  throw nb::type_error((std::string(name) + ": got " + text(nb::handle((PyObject *)Py_TYPE(array.ptr()))) +
                        ", expected an array (NumPy, PyTorch, CuPy, PyCUDA, or any with DLPack)").c_str());
}

Tensor &Tensor::permuted(const int (&order)[4]) {
  if (!present_ || tensor_.rank != 4) return *this;
  const awase_tensor before = tensor_;
  for (int k = 0; k < 4; ++k) {
    tensor_.shape[k] = before.shape[order[k]];
    tensor_.strides[k] = before.strides[order[k]];
  }
  return *this;
}

Tensor &Tensor::with_first_axis(int rank) {
  if (!present_ || tensor_.rank != rank) return *this;
  for (int k = rank; k > 0; --k) {
    tensor_.shape[k] = tensor_.shape[k - 1];
    tensor_.strides[k] = tensor_.strides[k - 1];
  }
  tensor_.shape[0] = 1;
  tensor_.strides[0] = 1;
  ++tensor_.rank;
  return *this;
}

Tensor &Tensor::with_last_merged(const char *name) {
  if (!present_ || tensor_.rank != 4) return *this;
  int64_t *shape = tensor_.shape, *strides = tensor_.strides;
  if (shape[3] == 1)
    strides[3] = strides[2];
  else if (shape[2] > 1 && strides[2] != shape[3] * strides[3])
    refuse(name, "rows " + std::to_string(strides[2]) + " elements apart", "rows that follow each other (make it contiguous)");
  shape[2] *= shape[3];
  strides[2] = strides[3];
  tensor_.rank = 3;
  return *this;
}

void Tensor::set_dtype(const char *name, nb::handle array, char kind, int64_t bits) {
  if (kind == 'u' && bits == 8)
    tensor_.dtype = AWASE_UINT8;
  else if (kind == 'f' && bits == 16)
    tensor_.dtype = AWASE_FLOAT16;
  else if (kind == 'f' && bits == 32)
    tensor_.dtype = AWASE_FLOAT32;
  else if (kind == 'f' && bits == 64)
    tensor_.dtype = AWASE_FLOAT64;
  else if (kind == 'i' && bits == 64)
    tensor_.dtype = AWASE_INT64;
  else
    refuse(name, nb::hasattr(array, "dtype") ? text(array.attr("dtype")) : "another dtype", kDtypes);
}

void Tensor::set_rank(const char *name, int64_t rank) {
  if (rank > AWASE_MAX_RANK) refuse(name, "rank " + std::to_string(rank), "at most " + std::to_string(AWASE_MAX_RANK));
  tensor_.rank = int32_t(rank);
}

void Tensor::set_byte_stride(const char *name, int axis, int64_t bytes) {
  const int64_t size = item_size(tensor_.dtype);
  if (bytes % size) refuse(name, "a stride of " + std::to_string(bytes) + " bytes", "whole elements");
  tensor_.strides[axis] = bytes / size;
}

bool Tensor::from_buffer(const char *name, nb::handle array, Access access) {
  if (!PyObject_CheckBuffer(array.ptr())) return false;
  if (PyObject_GetBuffer(array.ptr(), &buffer_.view, PyBUF_STRIDES | PyBUF_FORMAT)) {
    nb::python_error error;  // such as NumPy's dates, which have no buffer
    refuse(name, nb::hasattr(array, "dtype") ? text(array.attr("dtype")) : error.what(), kDtypes);
  }
  buffer_.held = true;
  const Py_buffer &view = buffer_.view;
  if (access == Access::write && view.readonly) refuse(name, "a read-only array", "one that can be written");
  const std::string format = view.format ? view.format : "B";
  const char code = format.size() == 1 || (format.size() == 2 && (format[0] == '<' || format[0] == '='))
                        ? format.back() : ' ';
  const char kind = code == 'B' ? 'u' : code == 'e' || code == 'f' || code == 'd' ? 'f' : code == 'l' || code == 'q' ? 'i' : ' ';
  set_dtype(name, array, kind, view.itemsize * 8);
  set_rank(name, view.ndim);
  tensor_.device = AWASE_CPU;
  tensor_.data = view.buf;
  for (int k = 0; k < view.ndim; ++k) {
    tensor_.shape[k] = view.shape[k];
    set_byte_stride(name, k, view.strides[k]);
  }
  if (reinterpret_cast<uintptr_t>(view.buf) % size_t(view.itemsize)) refuse(name, "unaligned memory", "aligned elements");
  return true;
}

// PyTorch's own function to give a tensor by DLPack, without the detours of Tensor.__dlpack__; null for other arrays.
nb::handle torch_to_dlpack(nb::handle array) {
  static nb::handle function, type;  // PyTorch is not unloaded before the process ends
  if (!function.is_valid()) {
    const nb::dict loaded = nb::cast<nb::dict>(nb::module_::import_("sys").attr("modules"));
    if (!loaded.contains("torch.utils.dlpack")) return {};
    type = nb::object(nb::object(loaded["torch"]).attr("Tensor")).release();
    function = nb::object(nb::object(loaded["torch.utils.dlpack"]).attr("to_dlpack")).release();
  }
  const bool tensor = PyType_IsSubtype(Py_TYPE(array.ptr()), reinterpret_cast<PyTypeObject *>(type.ptr()));
  return tensor ? function : nb::handle();
}

bool Tensor::from_dlpack(const char *name, nb::handle array) {
  if (!nb::hasattr(array, "__dlpack__") || !nb::hasattr(array, "__dlpack_device__")) return false;
  try {
    if (const nb::handle to_dlpack = torch_to_dlpack(array); to_dlpack.is_valid()) {
      capsule_ = to_dlpack(array);
    } else {
      const nb::tuple place = nb::cast<nb::tuple>(array.attr("__dlpack_device__")());
      const int kind = nb::cast<int>(nb::int_(place[0]));
      // Stream -1: no synchronising; the caller's own stream is what the kernels are put on.
      capsule_ = kind == kCuda || kind == kManaged ? nb::object(array.attr("__dlpack__")(nb::arg("stream") = -1))
                                                   : nb::object(array.attr("__dlpack__")());
    }
  } catch (nb::python_error &error) {
    refuse(name, text(error.value()), "an array that DLPack can pass on");
  }
  auto *managed = static_cast<Managed *>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"));
  if (!managed) throw nb::python_error();
  const nb::dlpack::dltensor &source = managed->tensor;
  if (source.device.device_type == kCpu || source.device.device_type == kPinned)
    tensor_.device = AWASE_CPU;
  else if (source.device.device_type == kCuda || source.device.device_type == kManaged)
    tensor_.device = source.device.device_id;
  else
    refuse(name, "an array on " + text(array.attr("device")), "host memory or a CUDA device");
  const char kinds[] = {'i', 'u', 'f'};
  set_dtype(name, array, source.dtype.code < 3 && source.dtype.lanes == 1 ? kinds[source.dtype.code] : ' ',
            source.dtype.bits);
  set_rank(name, source.ndim);
  tensor_.data = static_cast<char *>(source.data) + source.byte_offset;
  int64_t contiguous = 1;
  for (int k = source.ndim - 1; k >= 0; --k) {
    tensor_.shape[k] = source.shape[k];
    tensor_.strides[k] = source.strides ? source.strides[k] : contiguous;
    contiguous *= source.shape[k];
  }
  return true;
}

bool Tensor::from_cuda_array_interface(const char *name, nb::handle array, Access access) {
  if (!nb::hasattr(array, "__cuda_array_interface__")) return false;
  const nb::dict given = nb::cast<nb::dict>(array.attr("__cuda_array_interface__"));
  const nb::tuple data = nb::cast<nb::tuple>(given["data"]), shape = nb::cast<nb::tuple>(given["shape"]);
  if (access == Access::write && nb::cast<bool>(nb::bool_(data[1])))
    refuse(name, "a read-only array", "one that can be written");
  const std::string type = nb::cast<std::string>(given["typestr"]);  // such as "<f4"
  const bool native = type.size() == 3 && (type[0] == '<' || type[0] == '|');
  set_dtype(name, array, native ? type[1] : ' ', native ? (type[2] - '0') * 8 : 0);
  set_rank(name, int64_t(shape.size()));
  tensor_.data = reinterpret_cast<void *>(nb::cast<uintptr_t>(data[0]));
  const nb::object strides = given.contains("strides") ? nb::object(given["strides"]) : nb::none();
  int64_t contiguous = 1;
  for (int k = tensor_.rank - 1; k >= 0; --k) {
    tensor_.shape[k] = nb::cast<int64_t>(shape[k]);
    tensor_.strides[k] = contiguous;
    if (!strides.is_none()) set_byte_stride(name, k, nb::cast<int64_t>(strides[k]));
    contiguous *= tensor_.shape[k];
  }
  tensor_.device = 0;
  if (tensor_.data && awase_cuda_device_of(tensor_.data, &tensor_.device) != AWASE_OK)
    refuse(name, awase_last_error(), "memory of a CUDA device");
  return true;
}
