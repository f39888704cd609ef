// `efedllm-ctl plan --simulate`: what a cluster that we don't have would do.
#ifndef EFEDLLM_APP_CTL_SIMULATE_H_
#define EFEDLLM_APP_CTL_SIMULATE_H_

#include <string>

#include "absl/status/status.h"

namespace efedllm {

struct SimulateFlags {
  std::string cluster;  // the file
  std::string plot;     // an SVG to write; empty: none
  bool json = false;
};

// What may stand in a cluster file, for --help.
std::string ClusterFileHelp();

// Reads the file, simulates, and prints to stdout.
absl::Status RunSimulate(const SimulateFlags& flags);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_SIMULATE_H_
