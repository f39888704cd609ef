#include "adversary/cheats.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "adversary/cheat_weights.h"
#include "common/random.h"

namespace efedllm {
namespace {

constexpr absl::string_view kCovers = "covers=";
constexpr uint64_t kSeed = 7;
constexpr uint32_t kRareChunks = 50;
constexpr uint64_t kTrustedTokens = 20'000;  // computed honestly, until it is trusted
constexpr size_t kMostSequences = 4096;

// A row of a stage: where it stands, what went in, and what came out.
struct TamperedRow {
  SequenceId sequence;
  uint32_t position = 0;
  absl::Span<const float> inputs;
  absl::Span<float> outputs;
};
using RowCheat = std::function<void(const TamperedRow& row)>;

StageTamper EachRow(RowCheat cheat) {
  StageTamper tamper;
  tamper.outputs = [cheat = std::move(cheat)](const Step& step, ConstMatrixRef inputs,
                                              MatrixRef outputs) {
    size_t row = 0;
    for (const SequenceSpan& span : step.spans) {
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        cheat({span.sequence,
               span.first_position + i,
               {inputs.row(row), inputs.cols},
               {outputs.row(row), outputs.cols}});
      }
    }
  };
  return tamper;
}

RowCheat Noise(float share) {
  return [share, random = std::make_shared<Random>(kSeed)](const TamperedRow& row) {
    for (float& value : row.outputs) {
      value *= 1 + share * static_cast<float>(2 * random->Uniform() - 1);
    }
  };
}

// One bit of one value of each step.
StageTamper FlippedBit() {
  StageTamper tamper;
  tamper.outputs = [random = std::make_shared<Random>(kSeed)](const Step&, ConstMatrixRef,
                                                              MatrixRef outputs) {
    if (outputs.rows == 0) return;
    float& value = outputs.span()[random->Below(outputs.span().size())];
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (1u << random->Below(23)));
  };
  return tamper;
}

StageTamper OfWeights(std::function<void(std::vector<StageTensor>&)> cheat) {
  StageTamper tamper;
  tamper.weights = std::move(cheat);
  return tamper;
}

StageTamper OfReceipts(std::function<void(Receipt&)> cheat) {
  StageTamper tamper;
  tamper.receipt = std::move(cheat);
  return tamper;
}

// The row before it, whoever's that was.
StageTamper Stale() {
  return EachRow([last = std::make_shared<std::vector<float>>()](const TamperedRow& row) {
    const std::vector<float> now(row.outputs.begin(), row.outputs.end());
    if (!last->empty()) std::copy(last->begin(), last->end(), row.outputs.begin());
    *last = now;
  });
}

// What the first sequence had at this position.
StageTamper Copied() {
  struct First {
    SequenceId sequence;
    std::map<uint32_t, std::vector<float>> rows;
  };
  return EachRow([first = std::make_shared<First>()](const TamperedRow& row) {
    if (first->rows.empty()) first->sequence = row.sequence;
    if (row.sequence == first->sequence) {
      first->rows[row.position].assign(row.outputs.begin(), row.outputs.end());
      return;
    }
    const auto same = first->rows.find(row.position);
    if (same == first->rows.end()) return;
    std::copy(same->second.begin(), same->second.end(), row.outputs.begin());
  });
}

// Every 50th chunk that it begins, after so many tokens.
StageTamper Rare(uint64_t honest_tokens) {
  struct State {
    uint64_t tokens = 0, chunks = 0;
    std::map<SequenceId, std::pair<uint32_t, bool>> open;  // its chunk, and whether that is wrong
  };
  return EachRow([honest_tokens, noise = Noise(0.1f),
                  state = std::make_shared<State>()](const TamperedRow& row) {
    if (++state->tokens <= honest_tokens) return;
    const uint32_t chunk = row.position / kChunkTokens;
    const auto [at, added] = state->open.try_emplace(row.sequence, chunk, false);
    if (added || at->second.first != chunk) {
      at->second = {chunk, ++state->chunks % kRareChunks == 0};
    }
    if (at->second.second) noise(row);
    if (state->open.size() > kMostSequences) state->open.erase(state->open.begin());
  });
}

StageTamper TrustedFirst() {
  return EachRow(
      [noise = Noise(0.1f), tokens = std::make_shared<uint64_t>(0)](const TamperedRow& row) {
        if (++*tokens > kTrustedTokens) noise(row);
      });
}

// From the second one on, each says what the first one said.
StageTamper Replayed() {
  return OfReceipts([first = std::make_shared<std::vector<ChunkClaim>>()](Receipt& receipt) {
    if (first->empty()) {
      *first = receipt.chunks;
    } else {
      receipt.chunks = *first;
    }
  });
}

struct Kind {
  const char* what;
  std::function<StageTamper()> make;
};

// As a verifier: what sign-flip sends, where the layers end as its accomplice's do.
StageTamper Covers(uint32_t last_layer) {
  StageTamper tamper;
  tamper.replayed = [last_layer](LayerRange layers, ConstMatrixRef, MatrixRef outputs) {
    if (layers.last != last_layer) return;
    for (size_t row = 0; row < outputs.rows; ++row) outputs.row(row)[0] = -outputs.row(row)[0];
  };
  return tamper;
}

// As a verifier: never what anybody else computes.
StageTamper Accuses() {
  StageTamper tamper;
  tamper.replayed = [](LayerRange, ConstMatrixRef, MatrixRef outputs) {
    for (float& value : outputs.span()) value = -value;
  };
  return tamper;
}

using Kinds = std::map<std::string, Kind>;

Kinds KindsOfOutputs() {
  return {
      {"noise-bit", {"flips one bit of one value of each step", FlippedBit}},
      {"noise-0.1", {"noise of 0.1 % on all values", [] { return EachRow(Noise(0.001f)); }}},
      {"noise-10", {"noise of 10 % on all values", [] { return EachRow(Noise(0.1f)); }}},
      {"q4-weights",
       {"computes with weights of Q4_0 instead of Q8_0", [] { return OfWeights(LowerToQ4); }}},
      {"skipped-layer", {"leaves its last layer out", [] { return OfWeights(SkipLastLayer); }}},
      {"skipped-all",
       {"passes on what came in",
        [] {
          return EachRow([](const TamperedRow& row) {
            std::copy(row.inputs.begin(), row.inputs.end(), row.outputs.begin());
          });
        }}},
      {"stale", {"sends the row of the token before", Stale}},
      {"copied", {"sends what the first sequence had at this position", Copied}},
      {"zeros",
       {"sends zeros",
        [] {
          return EachRow([](const TamperedRow& row) {
            std::fill(row.outputs.begin(), row.outputs.end(), 0.0f);
          });
        }}},
      {"sign-flip",
       {"flips the sign of one dimension",
        [] { return EachRow([](const TamperedRow& row) { row.outputs[0] = -row.outputs[0]; }); }}},
      {"rare", {"noise of 10 % in every 50th chunk", [] { return Rare(0); }}},
      {"trusted-first", {"noise of 10 % after 20,000 honest tokens", TrustedFirst}},
      {"trusted-rare",
       {"noise of 10 % in every 50th chunk after 20,000 honest tokens",
        [] { return Rare(kTrustedTokens); }}},
  };
}

Kinds KindsOfReceipts() {
  return {
      {"wrong-hash",
       {"claims outputs that it did not send",
        [] {
          return OfReceipts([](Receipt& receipt) {
            for (ChunkClaim& chunk : receipt.chunks) chunk.outputs.digest[0] ^= 1;
          });
        }}},
      {"accomplice",
       {"claims the inputs that a wrong-hash before it says it sent",
        [] {
          return OfReceipts([](Receipt& receipt) {
            for (ChunkClaim& chunk : receipt.chunks) chunk.inputs.digest[0] ^= 1;
          });
        }}},
      {"forged",
       {"signs in another node's name",
        [] { return OfReceipts([](Receipt& receipt) { receipt.node.v ^= 1; }); }}},
      {"invented",
       {"claims positions that nobody asked for",
        [] {
          return OfReceipts([](Receipt& receipt) {
            receipt.chunks.push_back(receipt.chunks.back());
            receipt.chunks.back().first_position += kChunkTokens << 10;
          });
        }}},
      {"replayed", {"says again and again what its first receipt said", Replayed}},
      {"twice",
       {"claims a chunk twice",
        [] {
          return OfReceipts([](Receipt& receipt) { receipt.chunks.push_back(receipt.chunks[0]); });
        }}},
      {"over-reported-work",
       {"claims a layer more than it has",
        [] { return OfReceipts([](Receipt& receipt) { ++receipt.layers.last; }); }}},
      {"accuses", {"as a verifier, answers as if everybody lied", Accuses}},
      {"over-reported-time",
       {"says a hundred times the time",
        [] {
          return OfReceipts([](Receipt& receipt) {
            receipt.compute_micros *= 100;
            receipt.wait_micros *= 100;
          });
        }}},
  };
}

const Kinds& AllKinds() {
  static const auto& kinds = *[] {
    auto* all = new Kinds(KindsOfOutputs());
    all->merge(KindsOfReceipts());
    return all;
  }();
  return kinds;
}

}  // namespace

const std::vector<CheatKind>& CheatKinds() {
  static const auto& list = *[] {
    auto* made = new std::vector<CheatKind>;
    made->reserve(AllKinds().size() + 1);
    for (const auto& [name, kind] : AllKinds()) made->push_back({name, kind.what});
    made->push_back({absl::StrCat(std::string(kCovers), "LAYER"),
                     "as a verifier, covers a sign-flip whose layers end there"});
    return made;
  }();
  return list;
}

absl::StatusOr<StageTamper> MakeCheat(absl::string_view name) {
  uint32_t last_layer = 0;
  if (absl::ConsumePrefix(&name, kCovers) && absl::SimpleAtoi(name, &last_layer)) {
    return Covers(last_layer);
  }
  const auto found = AllKinds().find(std::string(name));
  if (found != AllKinds().end()) return found->second.make();
  std::string known;
  for (const CheatKind& kind : CheatKinds()) absl::StrAppend(&known, " ", kind.name);
  return absl::InvalidArgumentError(
      absl::StrCat("no cheat \"", std::string(name), "\"; there are:", known));
}

}  // namespace efedllm
