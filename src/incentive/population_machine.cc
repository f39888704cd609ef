#include "incentive/population_machine.h"

namespace efedllm {
namespace {

Sha256Digest DigestOf(uint8_t v) {
  Sha256Digest digest = {};
  digest[0] = v;
  return digest;
}

bool Turned(const PopulationGroup& group, PopulationKey& key) {
  if (key.trust.state != TrustState::kTrusted) return false;
  ++key.trusted_chunks;
  return key.trusted_chunks > group.wait_chunks &&
         (key.trusted_chunks - group.wait_chunks) % group.every == 0;
}

bool IsBad(const PopulationGroup& group, PopulationKey& key, Random& random) {
  switch (group.kind) {
    case PopulationKind::kConstant:
    case PopulationKind::kSybil:
      return true;
    case PopulationKind::kRare:
      return key.chunks % group.every == 0;
    case PopulationKind::kLazy:
      return random.Below(kWhole) < group.bad_ppm;
    case PopulationKind::kTurncoat:
    case PopulationKind::kReturner:
    case PopulationKind::kColluder:
      return Turned(group, key);
    default:
      return false;
  }
}

}  // namespace

bool DeliversBadChunk(const PopulationGroup& group, PopulationKey& key, Random& random) {
  ++key.chunks;
  const bool bad = IsBad(group, key, random);
  if (bad) ++key.detection.bad_chunks;
  if (key.detection.bad_chunks > 0) ++key.detection.chunks;
  return bad;
}

Sha256Digest RightOutputs() { return DigestOf(1); }
Sha256Digest BadOutputs() { return DigestOf(2); }

Sha256Digest VerifierAnswer(const PopulationGroup& group, const Sha256Digest& claimed,
                            const Sha256Digest& right, bool of_its_own) {
  switch (group.kind) {
    case PopulationKind::kAlwaysFine:
      return claimed;
    case PopulationKind::kAlwaysAccuses:
      return DigestOf(3);
    case PopulationKind::kColluder:
      return of_its_own ? claimed : right;
    default:
      return right;
  }
}

}  // namespace efedllm
