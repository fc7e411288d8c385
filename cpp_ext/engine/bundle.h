// A bundle opened: its manifest read, all its files verified.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/manifest.h"

namespace awase::engine {

// Graphs as engine.h describes them. The memory that awase_graph points to is owned here.
class Description {
 public:
  explicit Description(const std::vector<Graph> &graphs);
  Description(const Description &) = delete;
  const std::vector<awase_graph> &graphs() const { return graphs_; }

 private:
  const awase_port *describe(const std::vector<Port> &ports);

  std::vector<awase_graph> graphs_;
  std::deque<std::vector<awase_port>> ports_;
  std::deque<std::vector<const char *>> texts_;
};

struct Bundle {
  // Throws awase::Error that names the file at fault.
  explicit Bundle(const std::string &folder);

  // The graph called `name` (NULL: the first). Throws where there is none.
  const Graph &graph(const char *name) const;

  // A graph in one precision (NULL: fp32). Throws where there is none.
  const Variant &variant(const Graph &graph, const char *precision) const;

  // One of its files, verified again: what is used is what was checked.
  std::string read(const File &file) const;

  std::string folder;
  Manifest manifest;
  Description description;
};

}  // namespace awase::engine
