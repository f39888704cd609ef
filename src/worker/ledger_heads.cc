#include "worker/ledger_heads.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cluster/ledger_head_json.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr absl::string_view kHeads = ".jsonl";
constexpr absl::string_view kOlderHeads = ".1.jsonl";
constexpr absl::string_view kForks = ".forks.jsonl";
constexpr size_t kMostForkBytes = size_t{1} << 20;  // as good as a thousand proofs of the same
constexpr size_t kMostFileBytes = size_t{64} << 20;
constexpr size_t kMostKeys = 16;  // of coordinators, in one run

// Whole lines only, and on the disk when it returns.
absl::Status AppendLines(const std::string& path, const std::string& lines) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return ErrnoStatus(errno, "open", path);
  const absl::Cleanup closes = [file] { close(file); };
  struct stat before;
  if (fstat(file, &before) != 0) return ErrnoStatus(errno, "stat", path);
  const ssize_t written = write(file, lines.data(), lines.size());
  if (written == static_cast<ssize_t>(lines.size()) && fsync(file) == 0) {
    return before.st_size == 0 ? SyncFolderOf(path) : absl::OkStatus();
  }
  const int error = written >= 0 && written < static_cast<ssize_t>(lines.size()) ? ENOSPC : errno;
  (void)!ftruncate(file, before.st_size);
  return ErrnoStatus(error, "write", path);
}

// What was being written when the machine went down is no line yet, and is cut off.
absl::StatusOr<std::string> ReadLines(const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMostFileBytes));
  const size_t end = text.rfind('\n') + 1;  // 0: there is none
  if (end < text.size() && truncate(path.c_str(), static_cast<off_t>(end)) != 0) {
    return ErrnoStatus(errno, "truncate", path);
  }
  text.resize(end);
  return text;
}

size_t SizeOf(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
}

std::string Describe(const SignedLedgerHead& head) {
  return absl::StrCat(head.head.size, " entries of ",
                      FormatWallClock(absl::FromUnixMicros(head.head.time_micros)));
}

// `offered` continues `kept`.
absl::Status CheckFollows(const SignedLedgerHead& kept, const LedgerHeadOffer& offered) {
  if (kept.head.ledger != offered.head.head.ledger) {
    return absl::DataLossError("it is of another ledger");
  }
  return CheckHeadFollows(kept.head, offered.head.head, offered.proof);
}

}  // namespace

std::string HeldLedgerHeads::PathOf(const PublicKey& coordinator, absl::string_view ending) const {
  return absl::StrCat(folder_, "/", PublicKeyHex(coordinator), ending);
}

absl::StatusOr<std::optional<SignedLedgerHead>> HeldLedgerHeads::Newest(
    const PublicKey& coordinator) {
  const auto known = newest_.find(coordinator);
  if (known != newest_.end()) return known->second;
  for (const absl::string_view ending : {kHeads, kOlderHeads}) {
    const std::string path = PathOf(coordinator, ending);
    const absl::StatusOr<std::string> text = ReadLines(path);
    if (absl::IsNotFound(text.status())) continue;
    RETURN_IF_ERROR(text.status());
    const absl::StatusOr<std::vector<SignedLedgerHead>> heads = ParseHeads(*text);
    if (!heads.ok() ||
        (!heads->empty() && (heads->back().key != coordinator || !IsSigned(heads->back())))) {
      return absl::DataLossError(absl::StrCat(
          path, " is damaged: no head of the ledger is taken until it is moved elsewhere (",
          heads.ok() ? "its last head is not signed" : heads.status().message(), ")"));
    }
    if (heads->empty()) continue;
    if (newest_.size() >= kMostKeys) newest_.clear();
    newest_[coordinator] = heads->back();
    return heads->back();
  }
  return std::nullopt;
}

absl::Status HeldLedgerHeads::Take(const PublicKey& coordinator, const LedgerHeadOffer& offer) {
  const SignedLedgerHead& offered = offer.head;
  if (offered.key != coordinator || !IsSigned(offered)) {
    return absl::InvalidArgumentError("a head of the ledger without the coordinator's signature");
  }
  ASSIGN_OR_RETURN(const std::optional<SignedLedgerHead> kept, Newest(coordinator));
  if (!kept) return Append(coordinator, offered);
  const absl::Status follows = CheckFollows(*kept, offer);
  if (follows.ok()) {
    return kept->head.size == offered.head.size ? absl::OkStatus() : Append(coordinator, offered);
  }
  const absl::Status proof = KeepFork(coordinator, *kept, offered);
  return absl::FailedPreconditionError(absl::StrCat(
      "the coordinator's ledger, now with ", Describe(offered), ", is not that of the head with ",
      Describe(*kept), ", which it signed and this node keeps: ", follows.message(),
      proof.ok() ? "" : absl::StrCat("; the proof could not be kept: ", proof.message())));
}

std::string HeldLedgerHeads::WhatToDo(const PublicKey& coordinator) const {
  return absl::StrCat(
      "The new head is refused, and both are in ", PathOf(coordinator, kForks),
      ". Ask for a copy of the ledger: `efedllm-ctl ledger verify --file COPY --heads ", folder_,
      "` shows which of them it breaks. If the operator restored a backup and you accept that the "
      "entries behind it are lost, move ",
      PathOf(coordinator, kHeads), " elsewhere");
}

absl::Status HeldLedgerHeads::Append(const PublicKey& coordinator, const SignedLedgerHead& head) {
  RETURN_IF_ERROR(MakeDirectories(folder_, 0700));
  const std::string path = PathOf(coordinator, kHeads);
  if (SizeOf(path) >= most_bytes_ &&
      std::rename(path.c_str(), PathOf(coordinator, kOlderHeads).c_str()) != 0) {
    return ErrnoStatus(errno, "rename", path);
  }
  RETURN_IF_ERROR(AppendLines(path, absl::StrCat(HeadToJson(head), "\n")));
  newest_[coordinator] = head;
  return absl::OkStatus();
}

absl::Status HeldLedgerHeads::KeepFork(const PublicKey& coordinator, const SignedLedgerHead& kept,
                                       const SignedLedgerHead& offered) const {
  const std::string path = PathOf(coordinator, kForks);
  if (SizeOf(path) >= kMostForkBytes) return absl::OkStatus();
  return AppendLines(path, absl::StrCat(HeadToJson(kept), "\n", HeadToJson(offered), "\n"));
}

}  // namespace efedllm
