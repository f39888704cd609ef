#include "faultsim/mutation.h"

namespace efedllm::faultsim {

const std::vector<MutationInfo>& AllMutations() {
  static const std::vector<MutationInfo>& all = *new std::vector<MutationInfo>{
      {Mutation::kSkippedEpochCheck, "skipped-epoch-check",
       "a worker takes steps of an epoch that is over for steps of the present one"},
      {Mutation::kResumesTooFar, "resumes-too-far",
       "a sequence goes on one position behind what was confirmed"},
      {Mutation::kForgetsNobody, "forgets-nobody",
       "the first step of an epoch does not say that all others are forgotten"},
      {Mutation::kStaleOutputs, "stale-outputs", "a replay reads kept outputs of other positions"},
      {Mutation::kOverlappingLayers, "overlapping-layers", "two stages compute the same layer"},
      {Mutation::kEpochsNotSaved, "epochs-not-saved",
       "the number of the epoch is not on disk when it is used"},
      {Mutation::kResultsOutOfOrder, "results-out-of-order",
       "two results are taken for each other"},
      {Mutation::kUncheckedFrames, "unchecked-frames", "damaged activations pass the checksum"},
      {Mutation::kTokenSaidTwice, "token-said-twice",
       "after an epoch ended the last token is said again"},
      {Mutation::kKvNotFreed, "kv-not-freed", "a node keeps the KV of sequences that ended"},
      {Mutation::kWrongLineage, "wrong-lineage",
       "a worker says that it goes on with the KV of an epoch that it did not run"},
      {Mutation::kGhostLinks, "ghost-links",
       "a node that attached again keeps its old control stream, too"},
  };
  return all;
}

absl::string_view MutationName(Mutation mutation) {
  for (const MutationInfo& info : AllMutations()) {
    if (info.mutation == mutation) return info.name;
  }
  return "none";
}

std::optional<Mutation> FindMutation(absl::string_view name) {
  for (const MutationInfo& info : AllMutations()) {
    if (info.name == name) return info.mutation;
  }
  return std::nullopt;
}

}  // namespace efedllm::faultsim
