// The examples' command line, and text for their JSON.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>

// PROGRAM BUNDLE [--name value] …
class Arguments {
 public:
  // Throws std::invalid_argument where it is not that, or a name is not one of `known`.
  Arguments(int count, char **given, std::initializer_list<const char *> known) {
    std::string names;
    for (const char *name : known) names += " [--" + std::string(name) + " …]";
    const std::string usage = "; usage: " + std::string(given[0]) + " BUNDLE" + names;
    for (int k = 1; k < count; ++k) {
      const std::string word = given[k];
      if (word.rfind("--", 0) != 0) {
        if (!bundle_.empty()) throw std::invalid_argument("a second bundle, " + word + usage);
        bundle_ = word;
        continue;
      }
      bool is_known = false;
      for (const char *name : known) is_known |= word.substr(2) == name;
      if (!is_known) throw std::invalid_argument(word + " is not known" + usage);
      if (k + 1 == count) throw std::invalid_argument(word + " without a value" + usage);
      values_[word.substr(2)] = given[++k];
    }
    if (bundle_.empty()) throw std::invalid_argument("no bundle" + usage);
  }

  const std::string &bundle() const { return bundle_; }

  std::string text(const std::string &name, const std::string &otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
  }

  // Throws std::invalid_argument where it is no number from `low` to `high`.
  double number(const std::string &name, double otherwise, double low, double high) const {
    const std::string given = text(name, "");
    if (given.empty()) return otherwise;
    char *end = nullptr;
    const double value = std::strtod(given.c_str(), &end);
    if (*end || !(value >= low && value <= high)) {
      char range[80];
      std::snprintf(range, sizeof(range), ", expected a number from %g to %g", low, high);
      throw std::invalid_argument("--" + name + " is " + given + range);
    }
    return value;
  }

  int64_t whole(const std::string &name, int64_t otherwise, int64_t low, int64_t high) const {
    const double value = number(name, double(otherwise), double(low), double(high));
    if (value != std::floor(value)) throw std::invalid_argument("--" + name + " must be a whole number");
    return int64_t(value);
  }

 private:
  std::string bundle_;
  std::map<std::string, std::string> values_;
};

inline std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (const char c : text) {
    char escape[8] = {c, 0};
    if (static_cast<unsigned char>(c) < 0x20) std::snprintf(escape, sizeof(escape), "\\u%04x", c);
    if (c == '"' || c == '\\') std::snprintf(escape, sizeof(escape), "\\%c", c);
    result += escape;
  }
  return result + "\"";
}
