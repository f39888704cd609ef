#include "worker/kept_rows.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMostVersions = 8;
constexpr size_t kMostLineages = 64;
// However little memory there is: half of it is dropped at a time, and forks count twice.
constexpr uint64_t kLeastRows = 4 * kRowsToKeep;
// What a version of a sequence costs beside its rows, counted in rows.
constexpr uint64_t kVersionRows = 8;
constexpr absl::Duration kComplaintInterval = absl::Hours(1);

}  // namespace

KeptRows::KeptRows(RowLogOptions options)
    : most_rows_(std::max(kLeastRows, options.memory_bytes / 2 / sizeof(Row))),
      log_({options.memory_bytes / 2, options.disk_bytes, std::move(options.path)}) {}

KeptRows::Lineage& KeptRows::LineageOf(Epoch epoch) {
  std::shared_ptr<Lineage>& lineage = lineages_[epoch];
  if (lineage == nullptr) lineage = std::make_shared<Lineage>();
  Lineage& result = *lineage;
  if (lineages_.size() > kMostLineages) {
    const std::shared_ptr<Lineage> dropped = std::move(lineages_.begin()->second);
    lineages_.erase(lineages_.begin());
    if (dropped.use_count() == 1) {
      for (auto& [id, sequence] : *dropped) {
        while (!sequence.versions.empty()) DropVersion(sequence);
      }
    }
  }
  return result;
}

void KeptRows::Continue(Epoch epoch, Epoch earlier) {
  absl::MutexLock lock(&mu_);
  const auto it = lineages_.find(earlier);
  if (it == lineages_.end()) return;
  const std::shared_ptr<Lineage> lineage = it->second;
  lineages_[epoch] = lineage;
}

void KeptRows::AddVersion(Sequence& sequence, std::vector<Row> rows) {
  rows_ += rows.size() + kVersionRows;
  sequence.used = log_.end();
  sequence.versions.insert(sequence.versions.begin(), std::move(rows));
  if (sequence.versions.size() > kMostVersions) DropVersion(sequence);
}

void KeptRows::DropVersion(Sequence& sequence) {
  rows_ -= sequence.versions.back().size() + kVersionRows;
  sequence.versions.pop_back();
}

// The newest version up to `first`, where rows go on.
std::vector<KeptRows::Row>& KeptRows::RowsFrom(Lineage& lineage, SequenceId id, uint32_t first) {
  Sequence& sequence = lineage[id];
  sequence.used = log_.end();
  if (sequence.versions.empty()) AddVersion(sequence, {});
  const std::vector<Row>& newest = sequence.versions.front();
  if (first < std::min<size_t>(newest.size(), sequence.claimed_end)) {
    sequence.claimed_end = first;
    AddVersion(sequence, {newest.begin(), newest.begin() + first});
  }
  std::vector<Row>& rows = sequence.versions.front();
  rows_ += first;
  rows_ -= rows.size();
  rows.resize(first);
  return rows;
}

// What is about to be dropped becomes new again.
void KeptRows::Renew(Row& row) {
  if (log_.end() - row.offset < log_.window() / 2) return;
  std::string bytes;
  if (!log_.Read(row.offset, size_t{row.input_bytes} + row.output_bytes, bytes).ok()) return;
  row.offset = log_.Append(bytes);
}

void KeptRows::Fork(Lineage& lineage, const Step& step) {
  for (const SequenceFork& fork : step.forks) {
    const auto parent = lineage.find(fork.parent);
    if (parent == lineage.end()) continue;
    // An audit of the new sequence asks for them too, however old a prefix they are.
    parent->second.used = log_.end();
    std::vector<Row>& rows = parent->second.versions.front();
    const size_t shared = std::min<size_t>(rows.size(), fork.tokens);
    for (size_t i = 0; i < shared; ++i) Renew(rows[i]);
    AddVersion(lineage[fork.sequence], {rows.begin(), rows.begin() + shared});
  }
}

void KeptRows::MarkClaimed(Epoch epoch, absl::Span<const ClosedChunk> chunks) {
  if (chunks.empty()) return;
  absl::MutexLock lock(&mu_);
  Lineage& lineage = LineageOf(epoch);
  for (const ClosedChunk& chunk : chunks) {
    const auto it = lineage.find(chunk.claim.sequence);
    if (it == lineage.end()) continue;
    it->second.claimed_end = std::max(it->second.claimed_end, chunk.claim.end());
  }
}

void KeptRows::AddForks(Epoch epoch, const Step& step) {
  if (step.forks.empty()) return;
  absl::MutexLock lock(&mu_);
  Fork(LineageOf(epoch), step);
}

void KeptRows::Add(Epoch epoch, const Step& step, const KeptSide& inputs, const KeptSide& outputs) {
  CHECK(inputs.rows.sizes.size() == step.tokens() && outputs.rows.sizes.size() == step.tokens());
  absl::MutexLock lock(&mu_);
  Lineage& lineage = LineageOf(epoch);
  Fork(lineage, step);
  absl::string_view in = inputs.rows.bytes, out = outputs.rows.bytes;
  size_t r = 0;
  for (const SequenceSpan& span : step.spans) {
    std::vector<Row>& rows = RowsFrom(lineage, span.sequence, span.first_position);
    rows_ += span.tokens;
    for (uint32_t i = 0; i < span.tokens; ++i, ++r) {
      Row& row = rows.emplace_back();
      row.input_bytes = inputs.rows.sizes[r];
      row.output_bytes = outputs.rows.sizes[r];
      row.input_codec = static_cast<uint16_t>(inputs.codec);
      row.output_codec = static_cast<uint16_t>(outputs.codec);
      row.offset = log_.Append(in.substr(0, row.input_bytes));
      log_.Append(out.substr(0, row.output_bytes));
      in.remove_prefix(row.input_bytes);
      out.remove_prefix(row.output_bytes);
    }
  }
  // Where the disk is far too slow for what comes in.
  if (log_.Crowded()) Complain(log_.Tend());
}

absl::StatusOr<std::vector<KeptRows::Row>> KeptRows::RowsOf(const KeptRowsRequest& request) const {
  absl::MutexLock lock(&mu_);
  const auto lineage = lineages_.find(request.epoch);
  if (lineage == lineages_.end()) {
    return absl::NotFoundError(absl::StrCat("nothing is kept of epoch ", request.epoch.v));
  }
  const auto sequence = lineage->second->find(request.sequence);
  if (sequence == lineage->second->end() || request.version >= sequence->second.versions.size()) {
    return absl::NotFoundError(absl::StrCat("no version ", request.version, " of sequence ",
                                            request.sequence.v, " is kept"));
  }
  const std::vector<Row>& rows = sequence->second.versions[request.version];
  const size_t first = std::min<size_t>(request.first_position, rows.size());
  const size_t tokens = std::min<size_t>(request.tokens, rows.size() - first);
  const auto begin = rows.begin() + static_cast<ptrdiff_t>(first);
  return std::vector<Row>(begin, begin + static_cast<ptrdiff_t>(tokens));
}

absl::StatusOr<std::vector<CodedRow>> KeptRows::Find(const KeptRowsRequest& request) const {
  ASSIGN_OR_RETURN(const std::vector<Row> rows, RowsOf(request));
  std::vector<CodedRow> found;
  size_t bytes = 0;
  for (const Row& row : rows) {
    const uint32_t size = request.outputs ? row.output_bytes : row.input_bytes;
    if (row.input_codec == 0 || (!found.empty() && bytes + size > kKeptRowsReplyBytes)) break;
    CodedRow coded{request.outputs ? row.output_codec : row.input_codec, ""};
    const uint64_t offset = row.offset + (request.outputs ? row.input_bytes : 0);
    const absl::Status read = log_.Read(offset, size, coded.bytes);
    if (!read.ok()) {
      if (found.empty()) return read;
      break;
    }
    bytes += size;
    found.push_back(std::move(coded));
  }
  if (!found.empty()) return found;
  return absl::NotFoundError(absl::StrCat("position ", request.first_position, " of sequence ",
                                          request.sequence.v, " was never here"));
}

absl::StatusOr<grpc::ByteBuffer> KeptRows::FindRows(const grpc::ByteBuffer& request) const {
  ASSIGN_OR_RETURN(const KeptRowsRequest wanted, KeptRowsRequestFromWire(request));
  ASSIGN_OR_RETURN(const std::vector<CodedRow> rows, Find(wanted));
  return KeptRowsToWire(rows);
}

void KeptRows::DropOld() {
  const uint64_t oldest = log_.oldest();
  if (oldest != swept_) DropUnused(0);
  swept_ = oldest;
  // More rows than are to be: as if the older half of what is in the log were gone, and of that.
  for (uint64_t since = oldest; rows_ > most_rows_ && since < log_.end();) {
    since += (log_.end() - since + 1) / 2;
    DropUnused(since);
  }
}

// Sequences that were not used since, and versions whose rows are gone; a prefix was renewed.
void KeptRows::DropUnused(uint64_t since) {
  const auto gone = [oldest = log_.oldest()](const std::vector<Row>& rows) {
    return rows.empty() || std::max(rows.front().offset, rows.back().offset) < oldest;
  };
  for (auto& [epoch, shared] : lineages_) {
    Lineage& lineage = *shared;
    for (auto it = lineage.begin(); it != lineage.end();) {
      Sequence& sequence = it->second;
      while (!sequence.versions.empty() &&
             (sequence.used < since || gone(sequence.versions.back()))) {
        DropVersion(sequence);
      }
      it = sequence.versions.empty() ? lineage.erase(it) : std::next(it);
    }
  }
}

void KeptRows::Complain(const absl::Status& tended) {
  if (tended.ok() || SteadyNow() < next_complaint_) return;
  next_complaint_ = SteadyNow() + kComplaintInterval;
  spdlog::warn(
      "what audits may ask for does not go to the disk: {}. Where the node can't show it, its work "
      "is not paid: make room, or raise --audit-memory",
      std::string(tended.message()));
}

void KeptRows::Tend() {
  const absl::Status tended = log_.Tend();
  absl::MutexLock lock(&mu_);
  Complain(tended);
  DropOld();
}

}  // namespace efedllm
