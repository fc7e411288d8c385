#include "engine/onnx_file.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "src/error.h"

namespace awase::engine {
namespace {

// Numbers of fields in onnx.proto.
constexpr uint64_t kModelGraph = 7, kGraphNode = 1, kGraphInitializer = 5, kNodeAttribute = 5;
constexpr uint64_t kAttributeTensor = 5, kAttributeGraph = 6, kAttributeTensors = 10, kAttributeGraphs = 11;
constexpr uint64_t kTensorLocation = 14, kExternal = 1;

struct Field {
  uint64_t number;
  bool whole;  // a whole number in `value`, or bytes
  uint64_t value;
  std::string_view bytes;
};

[[noreturn]] void wrong() { throw Error(AWASE_INVALID, "no ONNX file"); }

// The fields of a protobuf message, in order.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  bool next(Field &field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = {key >> 3, (key & 7) == 0, 0, {}};
    uint64_t size = 0;
    switch (key & 7) {
      case 0: field.value = varint(); return true;
      case 1: size = 8; break;
      case 2: size = varint(); break;
      case 5: size = 4; break;
      default: wrong();
    }
    if (size > rest_.size()) wrong();
    field.bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) wrong();
      const auto byte = uint8_t(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    wrong();
  }

  std::string_view rest_;
};

std::string_view message(const Field &field) {
  if (field.whole) wrong();
  return field.bytes;
}

bool outside(const Field &tensor) {
  Fields fields(message(tensor));
  for (Field field; fields.next(field);)
    if (field.number == kTensorLocation && field.whole && field.value == kExternal) return true;
  return false;
}

bool node_outside(const Field &node, std::vector<std::string_view> &graphs) {
  Fields fields(message(node));
  for (Field attribute; fields.next(attribute);) {
    if (attribute.number != kNodeAttribute) continue;
    Fields parts(message(attribute));
    for (Field part; parts.next(part);) {
      if ((part.number == kAttributeTensor || part.number == kAttributeTensors) && outside(part)) return true;
      if (part.number == kAttributeGraph || part.number == kAttributeGraphs) graphs.push_back(message(part));
    }
  }
  return false;
}

}  // namespace

bool weights_outside(const std::string &onnx) {
  std::vector<std::string_view> graphs;
  Fields model(onnx);
  for (Field field; model.next(field);)
    if (field.number == kModelGraph) graphs.push_back(message(field));
  while (!graphs.empty()) {  // no recursion: a file may nest its graphs as deep as it likes
    Fields graph(graphs.back());
    graphs.pop_back();
    for (Field field; graph.next(field);)
      if ((field.number == kGraphInitializer && outside(field)) ||
          (field.number == kGraphNode && node_outside(field, graphs)))
        return true;
  }
  return false;
}

}  // namespace awase::engine
