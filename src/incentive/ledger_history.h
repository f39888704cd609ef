// What a ledger's entries, one after the other, add up to. The rules of the whole: ledger.cc keeps
// them while it writes, this finds out whether they were kept. Pure.
#ifndef EFEDLLM_INCENTIVE_LEDGER_HISTORY_H_
#define EFEDLLM_INCENTIVE_LEDGER_HISTORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "cluster/ledger_head.h"
#include "cluster/merkle.h"
#include "incentive/ledger_entry.h"

namespace efedllm {

// Roots of every so many levels are kept, so that no proof reads more than a few hundred hashes.
inline constexpr uint32_t kKeptLevels = 8;
struct KeptSubtree {
  uint32_t level = 0;
  uint64_t first = 0;  // entries before it
  Sha256Digest root = {};
};

class LedgerHistory {
 public:
  // The next entry. DataLoss says what is wrong with it: its number, itself, a key that was there,
  // a resolution of nothing, an account that may not be negative, its hash.
  absl::Status Add(const RecordedEntry& entry);

  uint64_t size() const { return tree_.size(); }
  // Unsigned, of time 0.
  LedgerHead Head() const;
  const absl::flat_hash_map<std::string, Micros>& balances() const { return balances_; }
  struct OpenWork {
    uint64_t number = 0;
    PendingWork work;
  };
  // By key: neither posted nor voided.
  const absl::flat_hash_map<std::string, OpenWork>& open_work() const { return open_; }
  // The roots of all full runs of 2^level entries, for every kKeptLevels-th level, in the order in
  // which they were completed.
  const std::vector<KeptSubtree>& subtrees() const { return subtrees_; }

 private:
  absl::Status AddKey(const std::string& key);
  absl::Status AddMoney(const Entry& entry);
  absl::Status AddWork(const Entry& entry);
  void AddLeaf(const Sha256Digest& leaf);

  Sha256Digest first_ = {}, chain_ = {};
  MerkleTree tree_;
  absl::flat_hash_map<std::string, Micros> balances_;
  absl::flat_hash_map<std::string, OpenWork> open_;
  absl::flat_hash_set<absl::uint128> keys_;  // their hashes
  std::vector<MerkleTree> partial_;          // of each kept level: the run that is not full
  std::vector<KeptSubtree> subtrees_;
};

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_HISTORY_H_
