#include "worker/receipt_writer.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"

namespace efedllm {
namespace {

constexpr size_t kMostEpochs = 16;
constexpr size_t kMostChunks = 1 << 14;  // of an epoch, that wait
constexpr size_t kMostUnanswered = 8;
constexpr off_t kMostGrantedBytes = off_t{16} << 20;

// Length, receipt, both signatures.
std::string GrantedEntry(const SignedReceipt& receipt, const Signature& countersignature) {
  const std::string text = CanonicalBytes(receipt.receipt);
  std::string entry;
  for (int shift = 0; shift < 32; shift += 8) {
    entry.push_back(static_cast<char>(text.size() >> shift));
  }
  entry += text;
  entry.append(receipt.signature.begin(), receipt.signature.end());
  entry.append(countersignature.begin(), countersignature.end());
  return entry;
}

}  // namespace

ReceiptWriter::ReceiptWriter(SigningKey key, const Clock& clock, std::string granted_path,
                             const StageTamper* tamper)
    : key_(std::move(key)),
      node_(NodeOfPublicKey(key_.public_key())),
      clock_(clock),
      granted_path_(std::move(granted_path)),
      tamper_(tamper) {}

void ReceiptWriter::Add(const ReceiptStageFacts& stage, absl::Span<const ClosedChunk> chunks,
                        absl::Duration compute, absl::Duration wait) {
  absl::MutexLock lock(&mu_);
  Pending& pending = pending_[stage.epoch];
  pending.stage = stage;
  pending.compute += compute;
  pending.wait += wait;
  if (pending.chunks.empty()) pending.since = clock_.Now();
  for (const ClosedChunk& chunk : chunks) {
    if (pending.chunks.size() >= kMostChunks) {
      ++counters_.lost;
    } else {
      pending.chunks.push_back(chunk.claim);
    }
  }
  if (pending_.size() > kMostEpochs) {
    counters_.lost += pending_.begin()->second.chunks.size();
    pending_.erase(pending_.begin());
  }
}

std::optional<SignedReceipt> ReceiptWriter::Take(Pending& pending) {
  const bool due = !pending.chunks.empty() && (hurry_ || pending.chunks.size() >= kReceiptChunks ||
                                               clock_.Now() - pending.since >= kReceiptInterval);
  if (!due || unanswered_.size() >= kMostUnanswered) return std::nullopt;
  Receipt receipt;
  receipt.node = node_;
  receipt.epoch = pending.stage.epoch;
  receipt.stage = pending.stage.stage;
  receipt.layers = pending.stage.layers;
  receipt.manifest = pending.stage.manifest;
  receipt.number = pending.next_number++;
  const auto end = pending.chunks.begin() +
                   static_cast<ptrdiff_t>(std::min(pending.chunks.size(), kMaxReceiptChunks));
  receipt.chunks.assign(pending.chunks.begin(), end);
  pending.chunks.erase(pending.chunks.begin(), end);
  pending.since = clock_.Now();
  receipt.compute_micros = static_cast<uint64_t>(
      absl::ToInt64Microseconds(std::exchange(pending.compute, absl::ZeroDuration())));
  receipt.wait_micros = static_cast<uint64_t>(
      absl::ToInt64Microseconds(std::exchange(pending.wait, absl::ZeroDuration())));
  if (tamper_ != nullptr && tamper_->receipt) tamper_->receipt(receipt);
  unanswered_.push_back(SignReceipt(std::move(receipt), key_));
  return unanswered_.back();
}

std::optional<SignedReceipt> ReceiptWriter::Next() {
  absl::MutexLock lock(&mu_);
  if (resend_ > 0) {
    // They come in their order, before any new one.
    const SignedReceipt again = unanswered_.front();
    unanswered_.push_back(again);
    unanswered_.pop_front();
    --resend_;
    return again;
  }
  for (auto& [epoch, pending] : pending_) {
    if (std::optional<SignedReceipt> receipt = Take(pending)) return receipt;
  }
  return std::nullopt;
}

bool ReceiptWriter::idle() const {
  absl::MutexLock lock(&mu_);
  return unanswered_.empty() &&
         std::all_of(pending_.begin(), pending_.end(),
                     [](const auto& pending) { return pending.second.chunks.empty(); });
}

void ReceiptWriter::Resend() {
  absl::MutexLock lock(&mu_);
  std::sort(unanswered_.begin(), unanswered_.end(),
            [](const SignedReceipt& a, const SignedReceipt& b) {
              return std::pair(a.receipt.epoch, a.receipt.number) <
                     std::pair(b.receipt.epoch, b.receipt.number);
            });
  resend_ = unanswered_.size();
}

void ReceiptWriter::TakeAnswer(const ReceiptAnswer& answer, const PublicKey& coordinator) {
  absl::MutexLock lock(&mu_);
  const auto it = std::find_if(unanswered_.begin(), unanswered_.end(), [&](const auto& receipt) {
    return receipt.receipt.epoch == answer.epoch && receipt.receipt.number == answer.number;
  });
  if (it == unanswered_.end()) return;
  const bool granted = answer.countersignature &&
                       Verify(coordinator, CountersignedBytes(*it), *answer.countersignature);
  if (granted) {
    ++counters_.granted;
    Keep(*it, *answer.countersignature);
  } else {
    ++counters_.refused;
    spdlog::warn("epoch {}: the coordinator refused receipt {}: {}", answer.epoch.v, answer.number,
                 answer.countersignature ? "its signature is wrong" : Printable(answer.refusal));
  }
  const auto index = static_cast<size_t>(it - unanswered_.begin());
  if (index < resend_) --resend_;
  unanswered_.erase(it);
}

// What the node can show for its work if the coordinator should ever say otherwise.
void ReceiptWriter::Keep(const SignedReceipt& receipt, const Signature& countersignature) {
  if (granted_path_.empty()) return;
  const std::string entry = GrantedEntry(receipt, countersignature);
  struct stat info;
  if (stat(granted_path_.c_str(), &info) == 0 && info.st_size > kMostGrantedBytes) {
    (void)std::rename(granted_path_.c_str(), absl::StrCat(granted_path_, ".1").c_str());
  }
  const int file = open(granted_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  (void)!write(file, entry.data(), entry.size());
  close(file);
}

ReceiptWriter::Counters ReceiptWriter::counters() const {
  absl::MutexLock lock(&mu_);
  return counters_;
}

}  // namespace efedllm
