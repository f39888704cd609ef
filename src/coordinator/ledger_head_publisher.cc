#include "coordinator/ledger_head_publisher.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "net/credentials.h"

namespace efedllm {

void LedgerHeadPublisher::Start(Ledger& ledger, absl::Duration interval) {
  ledger_ = &ledger;
  interval_ = interval;
  thread_ = std::thread([this] { Run(); });
}

void LedgerHeadPublisher::Hurry() {
  absl::MutexLock lock(&mu_);
  hurry_ = true;
}

void LedgerHeadPublisher::Stop() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void LedgerHeadPublisher::OnHeld(NodeId node, const std::shared_ptr<LedgerHeadKeeper>& keeper,
                                 const HeldLedgerHead& held) {
  std::string trouble = held.refusal;
  const bool ours = held.head && held.head->key == key_.public_key() && IsSigned(*held.head);
  if (held.head && !ours) trouble = "the head that it says it keeps is not signed by this key";
  absl::MutexLock lock(&mu_);
  Worker& worker = workers_[keeper.get()];
  worker.node = node;
  worker.keeper = keeper;
  worker.held = ours ? held.head : std::nullopt;
  worker.owes_answer = false;
  if (trouble.empty()) return;
  worker.refuses = true;
  spdlog::error(
      "{} does not take this ledger's head: {}. See docs/ledger.md, \"Heads that workers keep\"",
      NodeName(node), Printable(trouble, 500));
}

void LedgerHeadPublisher::OnGone(const LedgerHeadKeeper* keeper) {
  absl::MutexLock lock(&mu_);
  workers_.erase(keeper);
}

LedgerHeadPublisher::Figures LedgerHeadPublisher::figures() const {
  absl::MutexLock lock(&mu_);
  Figures figures;
  if (head_) figures.entries = head_->head.size;
  for (const auto& [keeper, worker] : workers_) {
    if (worker.refuses) {
      ++figures.refusers;
    } else if (head_ && worker.held && worker.held->head.size == figures.entries) {
      ++figures.holders;
    }
  }
  return figures;
}

bool LedgerHeadPublisher::IsDue(const Worker& worker) const {
  return head_ && !worker.refuses && !worker.owes_answer && worker.offered < head_->head.size &&
         !(worker.held && worker.held->head == head_->head);
}

bool LedgerHeadPublisher::HasDue() const {
  return stopping_ || hurry_ ||
         std::any_of(workers_.begin(), workers_.end(), [this](const auto& worker) {
           mu_.AssertReaderHeld();
           return IsDue(worker.second);
         });
}

void LedgerHeadPublisher::Run() {
  bool stopping = false;
  while (!stopping) {
    SignWhatIsNew();
    const absl::Time next = SteadyNow() + interval_;
    bool hurry = false;
    while (!stopping && !hurry && SteadyNow() < next) {
      OfferToAll();
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(this, &LedgerHeadPublisher::HasDue),
                           std::min(next - SteadyNow(), kLongestWait));
      stopping = stopping_;
      hurry = std::exchange(hurry_, false);
    }
  }
  SignWhatIsNew();
  OfferToAll();
}

void LedgerHeadPublisher::SignWhatIsNew() {
  const absl::StatusOr<uint64_t> size = ledger_->reader().Size();
  absl::Status status = size.status();
  if (size.ok()) {
    {
      absl::MutexLock lock(&mu_);
      if (head_ && head_->head.size == *size) return;
    }
    absl::StatusOr<SignedLedgerHead> head = ledger_->SignHead(key_, clock_.WallNow());
    status = head.status();
    if (head.ok()) {
      absl::MutexLock lock(&mu_);
      head_ = *std::move(head);
    }
  }
  if (!status.ok() && status != last_error_) {
    spdlog::error("no head of the ledger is signed: {}", std::string(status.message()));
  }
  last_error_ = status;
}

void LedgerHeadPublisher::OfferToAll() {
  struct Due {
    Worker worker;
    SignedLedgerHead head;
  };
  std::vector<Due> due;
  {
    absl::MutexLock lock(&mu_);
    for (auto& [keeper, worker] : workers_) {
      if (!IsDue(worker)) continue;
      worker.owes_answer = true;
      worker.offered = head_->head.size;
      due.push_back({worker, *head_});
    }
  }
  for (const Due& to : due) {
    LedgerHeadOffer offer{to.head, {}};
    // Of one that this ledger does not continue there is no proof: the worker will find that out,
    // and keep both heads.
    const uint64_t held = to.worker.held ? to.worker.held->head.size : 0;
    if (held > 0 && held <= to.head.head.size) {
      absl::StatusOr<MerkleProof> proof =
          ledger_->reader().ProveConsistency(held, to.head.head.size);
      if (proof.ok()) {
        offer.proof = *std::move(proof);
      } else {
        spdlog::error("no proof of the ledger's history for {}: {}", NodeName(to.worker.node),
                      std::string(proof.status().message()));
        continue;
      }
    }
    to.worker.keeper->Offer(offer);
  }
}

}  // namespace efedllm
