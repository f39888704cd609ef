#include "incentive/ledger_history.h"

#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

absl::Status Wrong(absl::string_view what) { return absl::DataLossError(what); }

}  // namespace

absl::Status LedgerHistory::Add(const RecordedEntry& entry) {
  if (entry.number != size() + 1) {
    return Wrong(absl::StrCat("its number is ", entry.number, " instead of ", size() + 1));
  }
  if (const absl::Status status = CheckEntry(entry.entry); !status.ok()) {
    return Wrong(status.message());
  }
  const bool opens = entry.entry.kind == EntryKind::kOpening;
  if (opens != (entry.number == 1)) {
    return Wrong(opens ? "a ledger has one opening" : "a ledger begins with its opening");
  }
  RETURN_IF_ERROR(AddKey(entry.entry.key));
  RETURN_IF_ERROR(AddWork(entry.entry));
  RETURN_IF_ERROR(AddMoney(entry.entry));
  const Sha256Digest hash = ChainHash(chain_, CanonicalBytes(entry.entry, entry.number));
  if (hash != entry.hash) return Wrong("its hash does not match its content and what is before it");
  chain_ = hash;
  if (entry.number == 1) first_ = hash;
  AddLeaf(MerkleLeaf(hash));
  return absl::OkStatus();
}

absl::Status LedgerHistory::AddKey(const std::string& key) {
  const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  if (keys_.insert(absl::MakeUint128(hash.high64, hash.low64)).second) return absl::OkStatus();
  return Wrong("its key was used before");
}

absl::Status LedgerHistory::AddWork(const Entry& entry) {
  if (entry.kind == EntryKind::kPending) {
    open_[entry.key] = {size() + 1, WorkOf(entry)};
    return absl::OkStatus();
  }
  if (entry.kind != EntryKind::kPost && entry.kind != EntryKind::kVoid) return absl::OkStatus();
  const auto found = open_.find(entry.about);
  if (found == open_.end()) {
    return Wrong(absl::StrCat("no pending work has the key ", entry.about,
                              ", or it is posted or voided already"));
  }
  const absl::Status status = CheckResolves(entry, found->second.work);
  if (!status.ok()) return Wrong(status.message());
  open_.erase(found);
  return absl::OkStatus();
}

absl::Status LedgerHistory::AddMoney(const Entry& entry) {
  for (const Posting& posting : entry.postings) {
    Micros& balance = balances_[posting.account];
    if (__builtin_add_overflow(balance, posting.amount, &balance)) {
      return Wrong(absl::StrCat("the balance of ", posting.account, " overflows"));
    }
    if (balance < 0 && !MayBeNegative(posting.account)) {
      return Wrong(absl::StrCat(posting.account, " becomes negative"));
    }
  }
  return absl::OkStatus();
}

void LedgerHistory::AddLeaf(const Sha256Digest& leaf) {
  tree_.Append(leaf);
  Sha256Digest root = leaf;
  for (size_t i = 0;; ++i) {
    if (i == partial_.size()) partial_.emplace_back();
    partial_[i].Append(root);
    if (partial_[i].size() < uint64_t{1} << kKeptLevels) return;
    root = partial_[i].Root();
    partial_[i] = MerkleTree();
    const auto level = static_cast<uint32_t>((i + 1) * kKeptLevels);
    subtrees_.push_back({level, size() - (uint64_t{1} << level), root});
  }
}

LedgerHead LedgerHistory::Head() const {
  return {.ledger = first_, .size = size(), .root = tree_.Root(), .chain = chain_};
}

}  // namespace efedllm
