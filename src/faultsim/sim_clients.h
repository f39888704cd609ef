// Clients of the simulated world: they ask, read, give up, and ask again with the same key. Every
// token is compared with what the model says when nothing goes wrong.
#ifndef EFEDLLM_FAULTSIM_SIM_CLIENTS_H_
#define EFEDLLM_FAULTSIM_SIM_CLIENTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "faultsim/sim_coordinator.h"
#include "faultsim/world.h"

namespace efedllm::faultsim {

class SimClients {
 public:
  // coordinator is borrowed. seed: of what they ask, and when.
  SimClients(World& world, SimCoordinator& coordinator, size_t clients);

  void Start();
  // No new requests from now on, and nobody gives up any more.
  void Finish() { finishing_ = true; }
  bool idle() const;
  // Reads what has come; after each turn of the coordinator's scheduler.
  void Read();
  // The coordinator is gone: open streams end.
  void OnCoordinatorCrash();

  uint64_t answered() const { return answered_; }
  uint64_t refused() const { return refused_; }
  uint64_t tokens() const { return tokens_; }
  // Who waits for what, for people.
  std::string Waiting() const;

 private:
  struct Client {
    size_t index = 0;
    bool asking = false;  // has a question
    size_t question = 0;
    int priority = 0;
    bool in_a_hurry = false;
    uint64_t attempt = 0;  // events of earlier attempts are nothing to it
    std::shared_ptr<Generation> generation;
    absl::Time deadline = absl::InfiniteFuture();
    std::vector<int32_t> tokens;
    Epoch epoch;  // of its last token
  };

  void Ask(Client& client);
  void Submit(Client& client);
  void AskAgain(Client& client, absl::Duration wait);
  void Rest(Client& client);
  void Read(Client& client);
  void Take(Client& client, const GenerationEvent& event);
  void TakeStatus(Client& client, const absl::Status& status);

  World& world_;
  SimCoordinator& coordinator_;
  std::vector<Client> clients_;
  bool finishing_ = false;
  uint64_t answered_ = 0;
  uint64_t refused_ = 0;
  uint64_t tokens_ = 0;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_SIM_CLIENTS_H_
