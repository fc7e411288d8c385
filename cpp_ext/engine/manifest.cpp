// Reads bundle.json. It comes from elsewhere: every field is checked before it is used, and one that is not known is
// refused, since it may change what the others mean. What only Python uses (parity, robot, …) is not looked into.
#include "engine/manifest.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "src/error.h"

namespace awase::engine {
namespace {

using nlohmann::json;

constexpr int kSchemaVersion = 1;
constexpr int kDeepest = 100;  // arrays and objects within each other

[[noreturn]] void wrong(const std::string &message) { throw Error(AWASE_INVALID, message); }

// A value of the manifest, and where in it that is ("graphs.0.inputs.0.shape").
class Field {
 public:
  Field(const json &value, std::string where) : value_(value), where_(std::move(where)) {}

  [[noreturn]] void refuse(const std::string &expected) const {
    std::string got = value_.dump(-1, ' ', true, json::error_handler_t::replace);
    if (got.size() > 60) got = got.substr(0, 57) + "...";
    wrong((where_.empty() ? "the manifest" : where_) + ": got " + got + ", expected " + expected);
  }

  bool null() const { return value_.is_null(); }

  // An object with no members but these.
  const Field &object(std::initializer_list<const char *> known) const {
    if (!value_.is_object()) refuse("an object");
    for (const auto &item : value_.items())
      if (std::none_of(known.begin(), known.end(), [&](const char *name) { return item.key() == name; }))
        Field(item.key(), where_).refuse("no such field (it may be a newer bundle's: upgrade awase)");
    return *this;
  }

  bool has(const char *name) const { return value_.contains(name); }

  Field operator[](const char *name) const {
    if (!has(name)) wrong(inside(name) + " is missing");
    return {value_[name], inside(name)};
  }

  std::vector<Field> list() const {
    if (!value_.is_array()) refuse("a list");
    std::vector<Field> items;
    for (size_t k = 0; k < value_.size(); ++k) items.emplace_back(value_[k], inside(std::to_string(k)));
    return items;
  }

  std::vector<std::pair<std::string, Field>> members() const {
    if (!value_.is_object()) refuse("an object");
    std::vector<std::pair<std::string, Field>> members;
    for (const auto &item : value_.items()) members.emplace_back(item.key(), Field(item.value(), inside(item.key())));
    return members;
  }

  std::string text() const {
    if (!value_.is_string()) refuse("text");
    const auto &text = value_.get_ref<const std::string &>();
    if (text.find('\0') != std::string::npos) refuse("text without a NUL");  // C would see half of it
    return text;
  }

  // One of these, as its index.
  int choice(std::initializer_list<const char *> known) const {
    const std::string given = text();
    std::string all;
    int index = 0;
    for (const char *name : known) {
      if (given == name) return index;
      all += (index++ ? ", " : "") + std::string(name);
    }
    refuse("one of " + all);
  }

  int64_t whole(int64_t low, int64_t high = int64_t(1) << 62) const {
    const std::string expected = "a whole number from " + std::to_string(low) + " to " + std::to_string(high);
    if (!value_.is_number_integer() || (value_.is_number_unsigned() && value_.get<uint64_t>() > uint64_t(high)))
      refuse(expected);
    const auto number = value_.get<int64_t>();
    if (number < low || number > high) refuse(expected);
    return number;
  }

  Bounds bounds() const {
    Bounds bounds{};
    if (!value_.is_array() || value_.size() != 2 || !value_[0].is_number() || !value_[1].is_number())
      refuse("two numbers, low and high");
    for (size_t k = 0; k < 2; ++k) bounds[k] = value_[k].get<double>();
    if (!(bounds[0] < bounds[1])) refuse("a lower bound below the upper one");
    return bounds;
  }

  std::string identifier() const {
    const std::string name = text();
    const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
    const auto more = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '_'; };
    if (name.empty() || !letter(name[0]) || !std::all_of(name.begin(), name.end(), more))
      refuse("a name of a-z, 0-9 and _ that starts with a letter");
    return name;
  }

  std::string sha256() const {
    const std::string digest = text();
    const auto hexadecimal = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (digest.size() != 64 || !std::all_of(digest.begin(), digest.end(), hexadecimal))
      refuse("64 hexadecimal digits in lower case");
    return digest;
  }

 private:
  std::string inside(const std::string &name) const { return where_.empty() ? name : where_ + "." + name; }

  const json &value_;
  std::string where_;
};

File read_file(const Field &entry) {
  File file{entry["file"].text(), uint64_t(entry["bytes"].whole(0)), entry["sha256"].sha256()};
  // It must not make us open files outside the bundle.
  if (file.name.empty() || file.name == "." || file.name == ".." || file.name == kManifest ||
      file.name.find_first_of("/\\") != std::string::npos ||
      std::any_of(file.name.begin(), file.name.end(), [](unsigned char c) { return c < 32 || c == 127; }))
    entry["file"].refuse("a plain file name");
  return file;
}

Port read_port(const Field &entry) {
  entry.object({"name", "shape", "dtype", "kind", "range", "unit", "names", "limits", "parts"});
  constexpr awase_dtype dtypes[] = {AWASE_FLOAT32, AWASE_FLOAT16, AWASE_UINT8, AWASE_INT64};
  Port port{};
  port.name = entry["name"].identifier();
  port.kind = awase_kind(entry["kind"].choice({"noise", "image", "vector", "latent"}));
  port.dtype = AWASE_FLOAT32;
  if (entry.has("dtype")) port.dtype = dtypes[entry["dtype"].choice({"float32", "float16", "uint8", "int64"})];
  int64_t elements = 1;
  for (const Field &size : entry["shape"].list()) {
    port.shape.push_back(size.whole(1, int64_t(1) << 31));
    if ((elements *= port.shape.back()) > int64_t(1) << 31) entry["shape"].refuse("at most 2^31 elements a sample");
  }
  const bool map = port.kind == AWASE_IMAGE || port.kind == AWASE_LATENT;
  if (port.shape.size() != (map ? 3u : 1u)) entry["shape"].refuse(map ? "[C, H, W]" : "one axis");
  if (entry.has("unit")) port.unit = entry["unit"].text();
  if (entry.has("range") && !entry["range"].null()) port.range = entry["range"].bounds();
  const std::string each = "one for each of " + std::to_string(port.shape[0]) + " components";
  if (entry.has("names")) {
    for (const Field &name : entry["names"].list()) port.names.push_back(name.text());
    if (!port.names.empty() && int64_t(port.names.size()) != port.shape[0]) entry["names"].refuse(each);
  }
  if (entry.has("limits") && !entry["limits"].null()) {
    port.limits.emplace();
    for (const Field &limits : entry["limits"].list()) port.limits->push_back(limits.bounds());
    if (int64_t(port.limits->size()) != port.shape[0]) entry["limits"].refuse(each);
  }
  if (entry.has("parts")) {
    int64_t channels = 0;
    for (const Field &part : entry["parts"].list()) {
      port.parts.push_back(part.whole(1, int64_t(1) << 31));
      channels += port.parts.back();
    }
    if (!port.parts.empty() && (port.kind != AWASE_LATENT || channels != port.shape[0]))
      entry["parts"].refuse("a latent's channel counts, whose sum is its " + std::to_string(port.shape[0]));
  }
  return port;
}

std::vector<Port> read_ports(const Field &list) {
  std::vector<Port> ports;
  for (const Field &entry : list.list()) ports.push_back(read_port(entry));
  if (ports.empty()) list.refuse("at least one");
  return ports;
}

std::string read_precision(const Field &entry) {
  constexpr const char *known[] = {"fp32", "fp16", "int8"};
  return entry.has("precision") ? known[entry["precision"].choice({"fp32", "fp16", "int8"})] : known[0];
}

// Names that no input or output may have: they would be fields of Python's samples, beside those of generated files.
constexpr const char *kTaken[] = {"and",   "as",     "assert",   "async", "await", "break",  "class",  "continue", "def",
                                  "del",   "elif",   "else",     "except", "finally", "for", "from",  "global",   "if",
                                  "import", "in",    "is",       "lambda", "nonlocal", "not", "or",   "pass",     "raise",
                                  "return", "try",   "while",    "with",  "yield", "seed",   "first", "robot"};

void check_names(const Field &entry, const Graph &graph) {
  std::vector<std::string> names;
  for (const Port &port : graph.inputs) names.push_back(port.name);
  for (const Port &port : graph.outputs) names.push_back(port.name);
  for (const std::string &name : names) {
    if (std::count(names.begin(), names.end(), name) > 1) entry["outputs"].refuse("names of which none is there twice");
    if (std::find(std::begin(kTaken), std::end(kTaken), name) != std::end(kTaken))
      entry["outputs"].refuse("names other than " + name);
  }
}

void read_graph(const Field &entry, Manifest &manifest) {
  entry.object({"file", "bytes", "sha256", "name", "precision", "opset", "inputs", "outputs", "parity"});
  Graph graph{entry["name"].identifier(), read_ports(entry["inputs"]), read_ports(entry["outputs"]), {}};
  check_names(entry, graph);
  entry["opset"].whole(1);
  const Variant variant{read_precision(entry), read_file(entry)};
  manifest.files.push_back(variant.file);
  for (Graph &known : manifest.graphs) {
    if (known.name != graph.name) continue;
    for (const Variant &other : known.variants)
      if (other.precision == variant.precision) entry["name"].refuse("each graph once in " + variant.precision);
    if (!(known.inputs == graph.inputs && known.outputs == graph.outputs))
      entry["name"].refuse("the same inputs and outputs in every precision");
    known.variants.push_back(variant);
    return;
  }
  graph.variants.push_back(variant);
  manifest.graphs.push_back(std::move(graph));
}

void read_engine(const Field &entry, Manifest &manifest) {
  entry.object({"file", "bytes", "sha256", "graph", "precision", "onnx_sha256", "flavour", "version",
                "compute_capabilities", "profile"});
  const std::string graph = entry["graph"].identifier(), precision = read_precision(entry);
  bool known = false;
  for (const Graph &other : manifest.graphs)
    for (const Variant &variant : other.variants) known |= other.name == graph && variant.precision == precision;
  if (!known) entry["graph"].refuse("a graph of the bundle in " + precision);
  constexpr const char *flavours[] = {"tensorrt-rtx", "tensorrt"};
  const int flavour = entry["flavour"].choice({"tensorrt-rtx", "tensorrt"});
  Engine engine{read_file(entry), graph, precision, entry["onnx_sha256"].sha256(), flavours[flavour],
                entry["version"].text(), {}, {}};
  for (const Field &capability : entry["compute_capabilities"].list()) engine.capabilities.push_back(capability.text());
  for (const auto &[input, field] : entry["profile"].members()) {
    const std::vector<Field> ends = field.list();
    if (ends.size() != 3) field.refuse("three shapes: smallest, best, largest");
    for (size_t k = 0; k < 3; ++k)
      for (const Field &size : ends[k].list()) engine.profile[input][k].push_back(size.whole(1));
  }
  manifest.files.push_back(engine.file);
  manifest.engines.push_back(std::move(engine));
}

Manifest read(const json &raw) {
  const Field root(raw, "");
  if (!raw.is_object() || !root.has("schema_version") || !raw["schema_version"].is_number_integer())
    wrong("no schema_version, so it is no bundle's manifest");
  if (raw["schema_version"] > kSchemaVersion)
    wrong("schema version " + raw["schema_version"].dump() + ", this awase reads up to " +
          std::to_string(kSchemaVersion) + ": upgrade awase");
  root["schema_version"].whole(kSchemaVersion, kSchemaVersion);
  root.object({"schema_version", "name", "recipe", "model", "graphs", "engines", "noise", "robot", "training",
               "versions", "licence"});
  Manifest manifest;
  manifest.name = root["name"].text();
  root["recipe"].text(), root["model"].text();
  for (const Field &entry : root["graphs"].list()) read_graph(entry, manifest);
  if (manifest.graphs.empty()) root["graphs"].refuse("at least one");
  if (root.has("engines"))
    for (const Field &entry : root["engines"].list()) read_engine(entry, manifest);
  if (root.has("noise")) {
    const Field noise = root["noise"].object({"generator", "transform", "distribution"});
    if (noise.has("generator")) noise["generator"].choice({"philox4x32-10"});
    if (noise.has("transform")) noise["transform"].choice({"box-muller"});
    if (noise.has("distribution")) noise["distribution"].choice({"normal(0, 1)"});
  }
  for (size_t k = 0; k < manifest.files.size(); ++k)
    for (size_t other = 0; other < k; ++other)
      if (manifest.files[k].name == manifest.files[other].name)
        wrong("the file " + manifest.files[k].name + " is named twice");
  return manifest;
}

}  // namespace

bool Port::operator==(const Port &other) const {
  return name == other.name && unit == other.unit && kind == other.kind && dtype == other.dtype &&
         shape == other.shape && names == other.names && limits == other.limits && range == other.range &&
         parts == other.parts;
}

Manifest read_manifest(const std::string &path, const std::string &text) {
  // A file of brackets alone would need a gigabyte.
  const auto shallow = [](int depth, json::parse_event_t, json &) {
    if (depth > kDeepest) wrong("nested too deep");
    return true;
  };
  try {
    return read(json::parse(text, shallow));
  } catch (const Error &error) {
    throw Error(error.status, path + ": " + error.what() + "; copy or export the bundle again");
  } catch (const json::parse_error &error) {
    throw Error(AWASE_INVALID, path + " is truncated or no JSON (at byte " + std::to_string(error.byte) +
                                   "); copy or export the bundle again");
  } catch (const json::exception &error) {
    throw Error(AWASE_INVALID, path + ": " + error.what() + "; copy or export the bundle again");
  }
}

}  // namespace awase::engine
