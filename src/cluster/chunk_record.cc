#include "cluster/chunk_record.h"

#include <algorithm>

#include "common/check.h"

namespace efedllm {
namespace {

// One side of rows as a chunk's. False: it is not known of all of them.
bool SideOf(absl::Span<const RecordedRow> rows, RowSide RecordedRow::*which, ChunkSide& side) {
  std::vector<Sha256Digest> digests;
  digests.reserve(rows.size());
  side.codec = (rows.front().*which).codec;
  for (const RecordedRow& row : rows) {
    const RowSide& one = row.*which;
    if (one.codec == 0) {
      side = ChunkSide();
      return false;
    }
    if (one.codec != side.codec) side.codec = 0;
    side.bytes += one.bytes;
    digests.push_back(one.digest);
  }
  side.digest = ChunkDigest(digests);
  return true;
}

uint32_t NextMultiple(uint32_t position) { return (position / kChunkTokens + 1) * kChunkTokens; }

}  // namespace

// Chunks up to `end`, which is a multiple or the record's end.
void ChunkRecord::CloseUntil(SequenceId sequence, uint32_t end, Open& open,
                             std::vector<ClosedChunk>& closed) {
  size_t taken = 0;
  while (open.first < end) {
    const uint32_t tokens = std::min(NextMultiple(open.first), end) - open.first;
    const auto rows = absl::MakeConstSpan(open.rows).subspan(taken, tokens);
    ClosedChunk& chunk = closed.emplace_back();
    chunk.claim.sequence = sequence;
    chunk.claim.first_position = open.first;
    chunk.claim.tokens = tokens;
    chunk.inputs_known = SideOf(rows, &RecordedRow::input, chunk.claim.inputs);
    chunk.outputs_known = SideOf(rows, &RecordedRow::output, chunk.claim.outputs);
    taken += tokens;
    open.first += tokens;
  }
  open.rows.erase(open.rows.begin(), open.rows.begin() + static_cast<ptrdiff_t>(taken));
}

void ChunkRecord::Trim(const Step& step, std::vector<ClosedChunk>& closed) {
  const auto forget = [&](Sequences::iterator it) {
    CloseUntil(it->first, it->second.end(), it->second, closed);
    return sequences_.erase(it);
  };
  for (const SequenceTrim& trim : step.trims) {
    const auto it = sequences_.find(trim.sequence);
    if (it != sequences_.end() && trim.length < it->second.end()) forget(it);
  }
  if (!step.forget_others) return;
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    const bool named = std::any_of(step.trims.begin(), step.trims.end(),
                                   [&](const auto& trim) { return trim.sequence == it->first; });
    it = named ? std::next(it) : forget(it);
  }
}

void ChunkRecord::Pass(const Step& step, absl::Span<const RecordedRow> rows,
                       std::vector<ClosedChunk>& closed) {
  Trim(step, closed);
  if (rows.empty()) return;
  CHECK(rows.size() == step.tokens());
  size_t row = 0;
  for (const SequenceSpan& span : step.spans) {
    const auto [it, fresh] = sequences_.try_emplace(span.sequence);
    Open& open = it->second;
    if (fresh) open.first = span.first_position;
    const uint32_t end = open.end();
    const uint32_t multiple = span.first_position / kChunkTokens * kChunkTokens;
    CloseUntil(span.sequence, span.first_position > end ? end : std::min(multiple, end), open,
               closed);
    if (span.first_position < open.first || span.first_position > end) {
      open.first = span.first_position;
      open.rows.clear();
    }
    open.rows.resize(span.first_position - open.first);
    open.rows.insert(open.rows.end(), rows.begin() + static_cast<ptrdiff_t>(row),
                     rows.begin() + static_cast<ptrdiff_t>(row + span.tokens));
    row += span.tokens;
  }
}

void ChunkRecord::CloseAll(std::vector<ClosedChunk>& closed) {
  for (auto& [sequence, open] : sequences_) CloseUntil(sequence, open.end(), open, closed);
  sequences_.clear();
}

}  // namespace efedllm
