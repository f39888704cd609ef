// KV on its way from one simulated worker to another.
#include "faultsim/sim_worker.h"

namespace efedllm::faultsim {

void SimWorker::OnHandOver(const HandOver&) {}
void SimWorker::OnKv(const Network::ConnectionPtr&, const std::string&) {}

HopFrame SimWorker::MutateArrival(HopFrame hop) { return hop; }
void SimWorker::MutateStep(PassingFrame&, const HeldStage&) {}

}  // namespace efedllm::faultsim
