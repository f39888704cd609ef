// KV on its way from one simulated worker to another.
#include "faultsim/sim_worker.h"

namespace efedllm::faultsim {

void SimWorker::OnHandOver(const HandOver&) {}
void SimWorker::OnKv(const Network::ConnectionPtr&, const std::string&) {}

}  // namespace efedllm::faultsim
