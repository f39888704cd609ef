// One simulated world: what all its parts share.
#ifndef EFEDLLM_FAULTSIM_WORLD_H_
#define EFEDLLM_FAULTSIM_WORLD_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/random.h"
#include "faultsim/event_loop.h"
#include "faultsim/mutation.h"
#include "faultsim/network.h"
#include "faultsim/tiny_model.h"
#include "net/credentials.h"

namespace efedllm::faultsim {

struct World {
  World(uint64_t seed, TinyModel& tiny_model, Mutation planted)
      : random(seed), network(loop, random), model(tiny_model), mutation(planted) {}

  EventLoop loop;
  Random random;
  Network network;
  TinyModel& model;
  const Mutation mutation;

  Process coordinator;                          // node 0
  std::map<NodeId, Process*> workers;           // by node
  std::map<NodeId, uint64_t> memory_bytes;      // of each worker
  Epoch last_epoch;                             // the highest that any coordinator has used
  std::vector<std::string> violations;          // what should never be; the first ends the run
  std::function<void(const std::string&)> log;  // empty: nobody reads it

  Process* Find(NodeId node) {
    if (node == kCoordinatorNode) return &coordinator;
    const auto worker = workers.find(node);
    return worker == workers.end() ? nullptr : worker->second;
  }
  // check: the name of the check that found it.
  template <class... Pieces>
  void Violation(const std::string& check, const Pieces&... pieces) {
    violations.push_back(absl::StrCat(check, ": ", pieces...));
    Say("VIOLATION", violations.back());
  }
  template <class... Pieces>
  void Say(const std::string& who, const Pieces&... pieces) {
    if (log) log(Line(who, absl::StrCat(pieces...)));
  }
  bool Is(Mutation planted) const { return mutation == planted; }

 private:
  std::string Line(const std::string& who, const std::string& what) const;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_WORLD_H_
