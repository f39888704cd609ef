// Bugs that can be planted into the simulated world, to see that its checks find them. The
// product's code has none of this: a mutation changes what passes between its parts.
#ifndef EFEDLLM_FAULTSIM_MUTATION_H_
#define EFEDLLM_FAULTSIM_MUTATION_H_

#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm::faultsim {

enum class Mutation {
  kNone,
  kSkippedEpochCheck,  // a worker takes steps of an epoch that is over for the present one's
  kResumesTooFar,      // a sequence goes on one position behind what is confirmed
  kForgetsNobody,      // the first step of an epoch says nothing of the others
  kStaleOutputs,       // a replay reads outputs of other positions
  kOverlappingLayers,  // two stages compute the same layer
  kEpochsNotSaved,     // the disk says that it synced the epoch, and did not
  kResultsOutOfOrder,  // two results are taken for each other
  kUncheckedFrames,    // damaged activations pass the checksum
  kTokenSaidTwice,     // after a replay the last token is said again
  kKvNotFreed,         // a node does not let go of a sequence that ended
  kWrongLineage,       // a worker says that it goes on with KV that it does not have
  kGhostLinks,         // a node that attaches again keeps its old control stream, too
};

struct MutationInfo {
  Mutation mutation;
  absl::string_view name;
  absl::string_view what;
};
// All but kNone.
const std::vector<MutationInfo>& AllMutations();
absl::string_view MutationName(Mutation mutation);
std::optional<Mutation> FindMutation(absl::string_view name);

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_MUTATION_H_
