#include "coordinator/draft_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "layers/kv_cache.h"
#include "model/stage_executor.h"
#include "model/weights.h"
#include "tensor/matrix.h"

namespace efedllm {
namespace {

constexpr uint64_t kUsualKvTokens = 16384;
constexpr double kNewTime = 0.2;  // weight of the latest measurement

// Whole pages.
uint64_t KvTokens(size_t positions) {
  constexpr uint64_t kPage = KvCache::kPagePositions;
  return (positions + kPage - 1) / kPage * kPage;
}

absl::Status CheckSameVocabulary(const Tokenizer& draft, uint32_t draft_vocab,
                                 const ServedModel& target) {
  if (draft_vocab != target.config.vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("its vocabulary has ", draft_vocab, " tokens, that of ", target.id, " has ",
                     target.config.vocab, "; use a small model of the same family"));
  }
  for (int32_t token = 0; token < static_cast<int32_t>(draft_vocab); ++token) {
    const std::string ours = draft.Piece(token, /*special=*/true);
    const std::string theirs = target.tokenizer->Piece(token, /*special=*/true);
    if (ours == theirs) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "its vocabulary is another one: token ", token, " is \"", Printable(ours), "\", in ",
        target.id, " it is \"", Printable(theirs), "\"; use a small model of the same family"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> WeightBytes(const ModelConfig& config, const ModelFile& file) {
  ASSIGN_OR_RETURN(const std::vector<TensorSpec> tensors,
                   StageTensors(config, file, {0, config.layers}));
  ASSIGN_OR_RETURN(const HeadSpecs head, HeadTensors(config, file));
  uint64_t bytes = PackedBytes(head.weight);
  for (const TensorSpec& tensor : tensors) bytes += PackedBytes(tensor);
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DraftModel>> DraftModel::Load(const DraftModelOptions& options,
                                                             const ServedModel& target,
                                                             const Clock& clock, Compute& compute) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(options.path));
  std::unique_ptr<DraftModel> draft(new DraftModel(clock, std::move(file)));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(draft->file_));
  RETURN_IF_ERROR(CheckModelTensors(config, draft->file_));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(draft->file_));
  RETURN_IF_ERROR(CheckSameVocabulary(*tokenizer, config.vocab, target));
  LocalModelOptions local;
  local.context = std::min(options.context, config.context);
  const uint64_t most = KvTokens(local.context) * options.max_sequences;
  local.kv_tokens = std::min(most, std::max(kUsualKvTokens, KvTokens(local.context)));
  local.max_sequences = static_cast<uint32_t>(options.max_sequences);
  local.max_tokens = std::max(kCatchUpRows, 2 * local.max_sequences);
  local.kv_type = std::nullopt;
  ASSIGN_OR_RETURN(draft->memory_bytes_, WeightBytes(config, draft->file_));
  draft->memory_bytes_ +=
      config.layers * local.kv_tokens * KvBytesPerToken(config, AutoKvType(config));
  ASSIGN_OR_RETURN(draft->model_, LocalModel::Create(draft->file_, local, compute));
  return draft;
}

std::unique_ptr<DraftModel::Session> DraftModel::Begin() {
  ++last_session_.v;
  return std::unique_ptr<Session>(new Session(*this, last_session_));
}

DraftModel::Session::~Session() {
  if (!held_.empty()) model_.ended_.push_back({id_, KvTokens(held_.size())});
}

void DraftModel::FreeEnded(Step& step) {
  const size_t count = std::min<size_t>(ended_.size(), StepLimits().max_trims);
  for (size_t i = ended_.size() - count; i < ended_.size(); ++i) {
    step.trims.push_back({ended_[i].id, 0});
    kv_tokens_used_ -= ended_[i].kv_tokens;
  }
  ended_.resize(ended_.size() - count);
}

// What the model must see before it can guess, as far as rows and KV memory are left.
std::vector<DraftModel::Row> DraftModel::Feed(absl::Span<Request> requests) {
  const LocalModelOptions& limits = model_->options();
  uint64_t kv_free = limits.kv_tokens - kv_tokens_used_;
  size_t rows_left = limits.max_tokens;
  std::vector<Row> rows;
  for (Request& request : requests) {
    Session& session = *request.session;
    std::vector<int32_t>& held = session.held_;
    const absl::Span<const int32_t> tokens = request.tokens;
    size_t& known = session.known_;  // what follows are drafts of the last call
    while (known < std::min(held.size(), tokens.size()) && held[known] == tokens[known]) ++known;
    const size_t first = std::min(known, tokens.size() - 1);  // the last token's logits are wanted
    const size_t count = std::min(tokens.size() - first, rows_left);
    const bool all = first + count == tokens.size();
    const size_t end = first + count + (all ? request.most : 0);
    const uint64_t kv_before = KvTokens(held.size());
    if (count == 0 || end > limits.context || KvTokens(end) > kv_free + kv_before) continue;
    if (rows.size() == limits.max_sequences) break;
    kv_free -= KvTokens(end) - kv_before;
    rows_left -= count;
    held.resize(first);
    const auto begin = tokens.begin() + static_cast<ptrdiff_t>(first);
    rows.push_back({&request,
                    {begin, begin + static_cast<ptrdiff_t>(count)},
                    kv_before,
                    all && request.most > 0});
  }
  return rows;
}

// One step of the model: what the rows hold, and the next draft of each that drafts.
absl::Status DraftModel::Advance(Step step, std::vector<Row>& rows) {
  std::vector<int32_t> tokens;
  for (const Row& row : rows) {
    Session& session = *row.request->session;
    step.spans.push_back({session.id_, static_cast<uint32_t>(session.held_.size()),
                          static_cast<uint32_t>(row.tokens.size())});
    tokens.insert(tokens.end(), row.tokens.begin(), row.tokens.end());
    session.held_.insert(session.held_.end(), row.tokens.begin(), row.tokens.end());
  }
  Matrix hidden(tokens.size(), model_->config().d_model);
  RETURN_IF_ERROR(model_->RunStages(step, tokens, hidden.ref()));
  Matrix last(rows.size(), hidden.cols());
  size_t end = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    end += rows[i].tokens.size();
    std::copy_n(hidden.row(end - 1), hidden.cols(), last.row(i));
  }
  Matrix logits(rows.size(), model_->config().vocab);
  model_->Logits(last.ref(), logits.ref());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].drafts) continue;
    Request& request = *rows[i].request;
    const int32_t draft = request.sampler.Sample({logits.row(i), logits.cols()});
    request.drafts.push_back(draft);
    rows[i].tokens = {draft};
  }
  return absl::OkStatus();
}

bool DraftModel::Continues(const Row& row) {
  const Request& request = *row.request;
  return row.drafts && request.drafts.size() < request.most &&
         !request.ends_at(request.drafts.back());
}

absl::Status DraftModel::Draft(absl::Span<Request> requests) {
  Step step;
  FreeEnded(step);
  const std::vector<Row> all = Feed(requests);
  std::vector<Row> rows = all;
  if (rows.empty() && !step.trims.empty()) {
    return model_->RunStages(step, {}, {nullptr, 0, model_->config().d_model});
  }
  while (!rows.empty()) {
    const absl::Time begun = clock_.Now();
    const bool one_each = std::all_of(rows.begin(), rows.end(),
                                      [](const Row& row) { return row.tokens.size() == 1; });
    RETURN_IF_ERROR(Advance(std::exchange(step, Step()), rows));
    if (one_each) {
      const double seconds = absl::ToDoubleSeconds(clock_.Now() - begun);
      seconds_per_token_ +=
          (seconds - seconds_per_token_) * (seconds_per_token_ > 0 ? kNewTime : 1);
    }
    rows.erase(std::remove_if(rows.begin(), rows.end(), [](const Row& r) { return !Continues(r); }),
               rows.end());
  }
  for (const Row& row : all) {
    kv_tokens_used_ += KvTokens(row.request->session->held_.size()) - row.kv_before;
  }
  return absl::OkStatus();
}

}  // namespace efedllm
